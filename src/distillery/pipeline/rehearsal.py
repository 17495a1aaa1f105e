"""Build every cell of a study once, on torch's meta device: shapes without numbers, in seconds for hundreds of cells.

What is called valid here does not fail later for a reason that could be known: keys and ranges of a method, whether it
finds in both networks what it compares, whether every plug-in acts, whether a last, incomplete batch can be trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from distillery import models
from distillery.config import Problems
from distillery.data import open_source
from distillery.data.arrays import Shape
from distillery.models.base import Network, Outputs
from distillery.models.seeing import see
from distillery.objectives.base import Batch, Context, Objective, Transform
from distillery.objectives.build import Loss
from distillery.records.io import DistilleryError
from distillery.study.blocks import Method, Preprocessing, Recipe
from distillery.study.model import Study
from distillery.teachers.released import source_of

_BATCH = 4  # rows of the rehearsed batch: two or more, so that statistics over it exist


def rehearse(study: Study, where: str = "params.yaml") -> None:
    """Raise DistilleryError that lists what would fail, one line each."""
    problems = list(dict.fromkeys(_problems(study)))
    if problems:
        raise DistilleryError("\n".join(f"{where}: {problem}" for problem in problems))


def _problems(study: Study) -> Iterator[str]:
    shape = open_source(study.data.source, study.data.options).shape()
    stage = _Stage(shape) if shape else None
    teachers: dict[str, Role] = {}
    for t in study.teachers:
        problems = list(_of_teacher(study, t, stage, teachers))
        if problems:
            teachers.pop(t, None)
            yield from problems
    for m in study.methods:
        for p, pair in study.pairs.items():
            method = study.methods[m].for_pair(p)
            here = f"methods.{m}.pairs.{p}" if p in study.methods[m].pairs else f"methods.{m}"
            try:
                loss = Loss(method)
            except Problems as found:
                yield from (f"{here}: {sentence}" for sentence in found.sentences)
                continue
            if loss.needs and len(pair.teachers) > 1 and "teachers" not in loss.needs:
                yield f"methods.{m}: {method.objective} learns from one teacher, and pair {p} has {len(pair.teachers)}"
            elif stage:
                student = Role(pair.student)
                problems = list(stage.trains(f"pairs.{p}", student, study.recipe_for(p, m)))
                yield from problems
                if not problems and teachers.keys() >= {*pair.teachers}:
                    roles = tuple(teachers[t] for t in pair.teachers)
                    yield from stage.plays(f"methods.{m} for {p}", method, loss, student, roles)


@dataclass(frozen=True, slots=True)
class Role:
    """A network, and what it sees where that is not what the data show."""

    architecture: str
    own: Preprocessing | None = None


def _of_teacher(study: Study, name: str, stage: _Stage | None, roles: dict[str, Role]) -> Iterator[str]:
    """What is wrong with a teacher; its role is put into `roles`."""
    teacher, where = study.teachers[name], f"teachers.{name}"
    role = Role(teacher.architecture)
    if teacher.source == "fetch":
        try:
            origin = source_of(teacher, study.data)
            role = Role(teacher.architecture, origin.preprocessing)
        except DistilleryError as error:
            yield f"{where}: {error}"
            return
        if teacher.preprocessing == "own" and "preprocessing" in teacher.model_fields_set and not role.own:
            yield f"{where}.preprocessing: {teacher.architecture} carries none of its own: give mean and std, or `data`"
        if stage and origin.classes not in (None, stage.shape.num_classes):
            yield (
                f"{where}: its weights are for {origin.classes} classes, and the data has {stage.shape.num_classes}: "
                "take weights that were trained on these classes"
            )
            return
    roles[name] = role
    if stage:
        problems = list(stage.trains(where, role, study.recipe_for_teacher(name)))
        if not problems and role.own and teacher.fallback == "train":
            problems = list(stage.trains(f"{where}.fallback", Role(role.architecture), study.recipe_for_teacher(name)))
        yield from problems
        if not problems and study.cache.pooled and stage.example(role, 1).pooled is None:
            yield f"cache.pooled: teacher {name} has no pooled features, so the view table cannot hold them"


class _Stage:
    """Networks and batches of one data set, without numbers."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.network = cache(self._network)
        self.example = cache(self._example)
        self.trains_on = cache(self._trains_on)

    def _network(self, role: Role) -> Network:
        asked = role.architecture, self.shape.num_classes, self.shape.channels
        try:
            with torch.device("meta"):
                network = models.build(*asked)
        except (NotImplementedError, RuntimeError, DistilleryError):  # it may ask for numbers while it is built
            network = models.build(*asked).to("meta")
        channels = self.shape.channels
        return see(network, role.own, (0.0,) * channels, (1.0,) * channels)

    def _images(self, count: int) -> Tensor:
        return torch.empty(count, self.shape.channels, self.shape.height, self.shape.width, device="meta")

    def _example(self, role: Role, rows: int) -> Outputs:
        with torch.no_grad():
            outputs: Outputs = self.network(role).eval()(self._images(rows), preacts=True)
        return outputs

    def _trains_on(self, role: Role, rows: int) -> str:
        """Say why a batch of so many images cannot be trained on; "" if it can."""
        shape, size = self.shape, role.own.size if role.own else None
        try:
            self.network(role).train()(self._images(rows))
        except DistilleryError as error:
            return str(error)
        except Exception as error:  # whatever the author of a network says to a size that it does not take
            why = " ".join(str(error).split())[:200] or type(error).__name__
            images = f"{size}x{size}" if size else f"{shape.height}x{shape.width}"
            return f"{role.architecture} does not take images of {images} with {shape.channels} channels: {why}"
        return ""

    def trains(self, where: str, role: Role, recipe: Recipe) -> Iterator[str]:
        """Whether the network takes these images, and whether it can be trained on the last batch."""
        if why := self.trains_on(role, _BATCH):
            yield f"{where}: {why}"
            return
        images = self.shape.train_images - round(self.shape.train_images * recipe.validation)
        last = images % recipe.batch_size
        if last == 1 and self.trains_on(role, 1):
            yield (
                f"{where}: with batch_size {recipe.batch_size} the last batch of {images:,} images holds one, and "
                f"{role.architecture} normalises over a single value there: choose another batch_size"
            )

    def plays(self, where: str, method: Method, loss: Loss, student: Role, teachers: tuple[Role, ...]) -> Iterator[str]:
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

    def _context(self, student: Role, teachers: tuple[Role, ...]) -> Context:
        labels = torch.arange(self.shape.train_images) % self.shape.num_classes
        if not teachers:
            return Context(self.shape.num_classes, labels, self.example(student, 1))
        outputs, count = self.example(teachers[0], 1), self.shape.train_images

        def on_train() -> Outputs:
            pooled = torch.empty(count, outputs.pooled.shape[1]) if outputs.pooled is not None else None
            return Outputs(torch.zeros(count, self.shape.num_classes), pooled)

        return Context(
            self.shape.num_classes, labels, self.example(student, 1), outputs, self.network(teachers[0]), on_train
        )

    def _batch(self, student: Role, teachers: tuple[Role, ...], needs: frozenset[str]) -> Batch:
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
