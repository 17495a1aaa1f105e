"""Building what is trained: a network for the data's classes, and an objective that has seen both networks."""

from __future__ import annotations

from functools import partial

import torch

from distillery import models
from distillery.data.pictured import Pictured
from distillery.models.base import Network, Outputs, anchor, with_cams
from distillery.objectives.base import Context, Objective
from distillery.objectives.build import build
from distillery.study.blocks import Method
from distillery.training.device import seeded


def built(
    student: str, method: Method, data: Pictured, teachers: list[Network], seed: int
) -> tuple[Network, Objective]:
    """Build the student and the objective of one run. The student's first weights depend on the seed alone."""
    with seeded(seed, "init"):
        network = models.build(student, data.num_classes, data.channels)
    with seeded(seed, "objective"):
        objective = build(method, _context(data, network, teachers))
    return network, objective


@torch.no_grad()
def _context(data: Pictured, student: Network, teachers: list[Network]) -> Context:
    image = data.normalise(data.example())
    student_device = anchor(student).device
    example = with_cams(student, student.eval()(image.to(student_device), preacts=True))
    if not teachers:
        return Context(data.num_classes, data.train_labels, example)
    first = teachers[0]
    dtype = anchor(first).dtype
    outputs = with_cams(first, first(image.to(dtype), preacts=True))
    return Context(data.num_classes, data.train_labels, example, outputs, first, partial(_on_train, first, data, dtype))


@torch.no_grad()
def _on_train(network: Network, data: Pictured, dtype: torch.dtype) -> Outputs:
    parts = [network(data.normalise(images, dtype)) for images, _ in data.plain("train")]
    pooled = [p.pooled for p in parts if p.pooled is not None]
    return Outputs(torch.cat([p.logits for p in parts]), torch.cat(pooled) if pooled else None)
