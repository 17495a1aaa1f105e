"""Build every cell of a study once, on torch's meta device: shapes without numbers, in seconds for hundreds of cells.

What is called valid here does not fail later for a reason that could be known: keys and ranges of a method, whether it
finds in both networks what it compares, whether every plug-in acts, whether a last, incomplete batch can be trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from distillery import models
from distillery.config import Problems
from distillery.data import open_source
from distillery.data.arrays import Shape
from distillery.models.base import Network, Outputs
from distillery.objectives.base import Batch, Context, Objective, Transform
from distillery.objectives.build import Loss
from distillery.records.io import DistilleryError
from distillery.study.blocks import Method, Recipe
from distillery.study.model import Study

_BATCH = 4  # rows of the rehearsed batch: two or more, so that statistics over it exist


def rehearse(study: Study, where: str = "params.yaml") -> None:
    """Raise DistilleryError that lists what would fail, one line each."""
    problems = list(dict.fromkeys(_problems(study)))
    if problems:
        raise DistilleryError("\n".join(f"{where}: {problem}" for problem in problems))


def _problems(study: Study) -> Iterator[str]:
    shape = open_source(study.data.source, study.data.options).shape()
    stage = _Stage(shape) if shape else None
    for t, teacher in study.teachers.items():
        if stage:
            yield from stage.trains(f"teachers.{t}", teacher.architecture, study.recipe_for_teacher(t))
    for m in study.methods:
        for p, pair in study.pairs.items():
            method = study.methods[m].for_pair(p)
            here = f"methods.{m}.pairs.{p}" if p in study.methods[m].pairs else f"methods.{m}"
            try:
                loss = Loss(method)
            except Problems as found:
                yield from (f"{here}: {sentence}" for sentence in found.sentences)
                continue
            architectures = tuple(study.teachers[t].architecture for t in pair.teachers)
            if loss.needs and len(architectures) > 1 and "teachers" not in loss.needs:
                yield f"methods.{m}: {method.objective} learns from one teacher, and pair {p} has {len(architectures)}"
            elif stage:
                yield from stage.trains(f"pairs.{p}", pair.student, study.recipe_for(p, m))
                yield from stage.plays(f"methods.{m} for {p}", method, loss, pair.student, architectures)


class _Stage:
    """Networks and batches of one data set, without numbers."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.network = cache(self._network)
        self.example = cache(self._example)
        self.trains_on = cache(self._trains_on)

    def _network(self, architecture: str) -> Network:
        with torch.device("meta"):
            return models.build(architecture, self.shape.num_classes, self.shape.channels)

    def _images(self, count: int) -> Tensor:
        return torch.empty(count, self.shape.channels, self.shape.height, self.shape.width, device="meta")

    def _example(self, architecture: str, rows: int) -> Outputs:
        with torch.no_grad():
            outputs: Outputs = self.network(architecture).eval()(self._images(rows), preacts=True)
        return outputs

    def _trains_on(self, architecture: str, rows: int) -> str:
        """Say why a batch of so many images cannot be trained on; "" if it can."""
        try:
            self.network(architecture).train()(self._images(rows))
        except (ValueError, RuntimeError) as error:
            return " ".join(str(error).split())[:200]
        return ""

    def trains(self, where: str, architecture: str, recipe: Recipe) -> Iterator[str]:
        """Whether the network takes these images, and whether it can be trained on the last batch."""
        if why := self.trains_on(architecture, _BATCH):
            size = f"{self.shape.height}x{self.shape.width}"
            yield f"{where}: {architecture} does not take images of {size} with {self.shape.channels} channels: {why}"
            return
        images = self.shape.train_images - round(self.shape.train_images * recipe.validation)
        last = images % recipe.batch_size
        if last == 1 and self.trains_on(architecture, 1):
            yield (
                f"{where}: with batch_size {recipe.batch_size} the last batch of {images:,} images holds one, and "
                f"{architecture} normalises over a single value there: choose another batch_size"
            )

    def plays(self, where: str, method: Method, loss: Loss, student: str, teachers: tuple[str, ...]) -> Iterator[str]:
        """Build the objective as a run does, and compute its loss where no number decides what is computed."""
        names = teachers if loss.needs else ()
        try:
            context = self._context(student, names)
            with torch.device("meta"):
                objective = loss.build(context)
        except DistilleryError as error:
            yield f"{where}: {error}"
            return
        except (NotImplementedError, RuntimeError) as error:
            if not _asks_for_numbers(error):
                raise
            return
        acted: set[str] = set()
        batch = self._batch(student, names, loss.needs)
        terms = _rehearsed(objective, batch, acted)
        if loss.needs and terms is not None and not terms:
            yield f"{where}: every term of {method.objective} has weight 0"
        for name, (kind, _) in loss.plugins.items():
            if not loss.needs:
                yield f"{where}: plug-in {name!r} has no effect: {method.objective} has no teacher"
            elif issubclass(kind, Transform) and terms is not None and kind.__name__ not in acted:
                yield f"{where}: plug-in {name!r} has no effect: {method.objective} compares no logits"

    def _context(self, student: str, teachers: tuple[str, ...]) -> Context:
        labels = torch.arange(self.shape.train_images) % self.shape.num_classes
        if not teachers:
            return Context(self.shape.num_classes, labels, self.example(student, 1))
        outputs, count = self.example(teachers[0], 1), self.shape.train_images
        assert outputs.pooled is not None

        def on_train() -> Outputs:
            pooled = torch.empty(count, outputs.pooled.shape[1]) if outputs.pooled is not None else None
            return Outputs(torch.zeros(count, self.shape.num_classes), pooled)

        return Context(
            self.shape.num_classes, labels, self.example(student, 1), outputs, self.network(teachers[0]), on_train
        )

    def _batch(self, student: str, teachers: tuple[str, ...], needs: frozenset[str]) -> Batch:
        strong = "strong" in needs
        ours, theirs = self.example(student, _BATCH), tuple(self.example(t, _BATCH) for t in teachers)
        return Batch(
            torch.zeros(_BATCH, dtype=torch.int64, device="meta"),
            ours,
            theirs,
            torch.ones((), device="meta"),
            torch.arange(_BATCH, device="meta"),
            ours if strong else None,
            theirs[0] if strong else None,
        )


def _rehearsed(objective: Objective, batch: Batch, acted: set[str]) -> dict[str, Tensor] | None:
    """Compute the distillation terms on the meta device; None where that asks for numbers (an eigensolver, a mask).

    `acted` collects the names of the transforms that were called.
    """
    hooks = [plugin.register_forward_hook(_noting(acted)) for plugin in objective.plugins]
    inner = getattr(objective, "main", objective)
    if inner is not objective:
        hooks += [plugin.register_forward_hook(_noting(acted)) for plugin in inner.plugins]
    try:
        with torch.no_grad():
            return objective.to("meta").train().distil(batch)
    except (NotImplementedError, RuntimeError) as error:
        if _asks_for_numbers(error):
            return None
        raise DistilleryError(f"{type(objective).__name__}: {' '.join(str(error).split())[:200]}") from None
    finally:
        for hook in hooks:
            hook.remove()


def _asks_for_numbers(error: Exception) -> bool:
    """Whether code failed only because tensors on the meta device hold no numbers."""
    return isinstance(error, NotImplementedError) or "meta" in str(error).lower() or "item()" in str(error)


def _noting(acted: set[str]) -> Callable[..., None]:
    def note(module: Any, *_: Any) -> None:
        acted.add(type(module).__name__)

    return note
