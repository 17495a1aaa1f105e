"""Distillery's own training step, set up as `fit()` does it, on pixels in memory and a stand-in for the view table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from side_by_side import device, now

from distillery.data import cifar100
from distillery.data.dataset import Dataset
from distillery.data.precision import dtype_of, memory_format
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.teachers.source import TableTeachers
from distillery.teachers.view_table import ViewTable
from distillery.training import loop
from distillery.training.device import set_up

KD = Method(objective="kd", temperature=4.0)
MIRROR = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar100"  # beside the checkout, where there is one


def pixels(count: int, mirror: Path | None) -> Dataset:
    """Give `count` CIFAR-100 training images in random order: of a mirror, else random pixels of the same shape."""
    draw = np.random.default_rng(0)
    if mirror is not None:
        arrays = cifar100.load({"mirror": mirror}).tensors
        chosen = draw.permutation(len(arrays["train_labels"]))[:count]
        images, labels = arrays["train_images"][chosen], arrays["train_labels"][chosen]
    else:
        images = draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        labels = draw.integers(0, 100, count, dtype=np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(labels).long()
    mean, std = tuple(cifar100.MEAN), tuple(cifar100.STD)
    names = tuple(str(i) for i in range(100))
    return Dataset(x, y, x[:1], y[:1], names, 255.0, mean, std, torch.arange(count))


def random_table(images: int, views: int, classes: int) -> ViewTable:
    """A table of random logits: reading it costs what reading the real one costs, but it need not be built."""
    return ViewTable(torch.randn(images * views, classes, device=device()), views, classes)


@dataclass
class Ours:
    """A student in training.

    `run(steps)` trains that many steps, epoch after epoch, and returns the seconds, with each step's share of laying
    out its epoch: the order, the views, the rows gathered from the table.
    """

    student: str
    data: Dataset
    table: ViewTable
    recipe: Recipe

    def __post_init__(self) -> None:
        where = self.prepare()
        self.data = self.data.to(where)
        self.source = TableTeachers([self.table.place(where)])
        trainee = assemble(self.student, KD, self.data, [], 0)
        self.network, self.objective = trainee.student, trainee.objective
        self.network.to(where, dtype_of(self.recipe)).to(memory_format=memory_format(self.recipe)).train()
        self.objective.to(where, dtype_of(self.recipe)).train()
        self.optimizer = loop.make_optimizer(trainee.named_parameters(), self.recipe, where)
        self.loader = self.data.loader(self.recipe)
        self.step = loop.make_step(trainee, self.loader, self.source, self.optimizer, self.recipe)
        self.epoch, self.steps = 0, len(self.data.train_labels) // self.recipe.batch_size  # whole batches: equal rounds
        self.laying_out = self.begin()
        self.layout_seconds = self.begin()
        self.gathering: Callable[[], None] | None = None  # the data path alone, once it is captured (limit.py)

    def prepare(self) -> torch.device:
        """Put this side's precision and determinism in force."""
        return set_up(self.recipe)

    def begin(self) -> float:
        """Lay out the next epoch; return the seconds."""
        start = now()
        self.epoch, self.at = self.epoch + 1, 0
        self.step.begin(self.loader.epoch(0, self.epoch, cached=self.source.rows), self.epoch)
        return now() - start

    def advance(self) -> None:
        """Train one step; begin the next epoch where one ends."""
        if self.at == self.steps:
            self.laying_out += self.begin()
        self.step(self.at * self.recipe.batch_size, self.recipe.batch_size)
        self.at += 1

    def run(self, steps: int) -> float:
        self.prepare()
        self.laying_out, start = 0.0, now()
        for _ in range(steps):
            self.advance()
        return now() - start - self.laying_out + self.layout_seconds * steps / self.steps
