"""Untrained networks and a few drawn images in place of a study's: what each of its cells is tried on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from distillery import models
from distillery.data.arrays import Shape
from distillery.imaging.colour import no_levels
from distillery.models.base import Network, Outputs, with_cams
from distillery.models.drop_path import set_drop_path
from distillery.models.seeing import see
from distillery.objectives.base import Batch, Context, Objective, Transform
from distillery.objectives.build import Combined, Loss
from distillery.records.io import DistilleryError
from distillery.records.preprocessing import Preprocessing
from distillery.study.blocks import Method, Recipe

ROWS = 4  # of the rehearsed batch: two or more, so that statistics over it exist


@dataclass(frozen=True, slots=True)
class Role:
    """A network, and what it sees where that is not what the data show."""

    architecture: str
    own: Preprocessing | None = None


class Trial:
    """Untrained networks and batches of one data set, on the CPU; `whole` if training is to see all its labels."""

    def __init__(self, shape: Shape, whole: bool = True) -> None:
        self.shape, self.whole = shape, whole
        self.network = cache(self._network)
        self.outputs = cache(self._outputs)
        self.trains_on = cache(self._trains_on)
        self.on_train = cache(self._on_train)

    def _network(self, role: Role) -> Network:
        """A network that normalises by the statistics of some images, as a trained one does."""
        channels = self.shape.channels
        network = models.build(role.architecture, self.shape.num_classes, channels)
        network = see(network, role.own, (0.0,) * channels, (1.0,) * channels)
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the next batch's own statistics
        with torch.no_grad():
            network.train()(self._images(ROWS))
        return network.eval()

    def _images(self, count: int) -> Tensor:
        return torch.randn(count, self.shape.channels, self.shape.height, self.shape.width)

    def _outputs(self, role: Role, rows: int) -> Outputs:
        with torch.no_grad():
            network = self.network(role).eval()
            return with_cams(network, network(self._images(rows), preacts=True))

    def _trains_on(self, role: Role, rows: int) -> str:
        """Say why a batch of so many images cannot be trained on, or what it gives is no use; "" if all is well."""
        shape, size = self.shape, role.own.size if role.own else None
        try:
            network = self.network(role)
            with torch.no_grad():
                network.train()(self._images(rows))
                found = network.eval()(self._images(rows)).logits
        except DistilleryError as error:
            return str(error)
        except Exception as error:  # whatever the author's code raises
            images = f"{size}x{size}" if size else f"{shape.height}x{shape.width}"
            why = said(error) or type(error).__name__
            return f"{role.architecture} does not take images of {images} with {shape.channels} channels: {why}"
        if bool((found >= 0).all()) and torch.allclose(found.sum(1), torch.ones(rows), rtol=0, atol=1e-3):
            return f"{role.architecture} gives probabilities, and methods need logits: leave out the softmax at its end"
        return ""

    def taps_twice(self, architecture: str) -> bool:
        """Whether more normalisations are passed in training if the taps before the activation are asked for."""
        network, passed = copy.deepcopy(self.network(Role(architecture))).train(), list[int]()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_hook(lambda *_: passed.append(1))
        with torch.no_grad():
            network(self._images(ROWS))
            without = len(passed)
            network(self._images(ROWS), preacts=True)
        return len(passed) > 2 * without

    def trains(self, where: str, role: Role, recipe: Recipe) -> Iterator[str]:
        """Whether the network takes these images, and whether it can be trained on the last batch."""
        if why := self.trains_on(role, ROWS):
            yield f"{where}: {why}"
            return
        if round(self.shape.train_images * (1 - recipe.validation)) < 1:
            yield f"{where}: recipe.validation {recipe.validation:g} leaves no image to train on"
            return
        if (pad := recipe.augmentation.pad) > (side := max(self.shape.height, self.shape.width)):
            yield f"{where}: recipe.augmentation.pad is {pad:,}, wider than the images ({side} pixels)"
        # What is held out or hidden is a share of each class, whose sizes nobody knows yet: then the job says it.
        images = self.shape.train_images
        counted = self.whole and not recipe.validation
        if counted and images % recipe.batch_size == 1 and self.trains_on(role, 1):
            yield (
                f"{where}: with batch_size {recipe.batch_size} the last batch of {images:,} images holds one, and "
                f"{role.architecture} normalises over a single value there: choose another batch_size"
            )

    def drops(self, where: str, role: Role, recipe: Recipe) -> Iterator[str]:
        """Whether the network has the stochastic depth that the recipe sets a rate of."""
        if recipe.drop_path is not None and not self.trains_on(role, ROWS):
            try:
                set_drop_path(copy.deepcopy(self.network(role)), recipe.drop_path)
            except DistilleryError as error:
                yield f"{where}: drop_path: {error}"

    def plays(
        self, where: str, method: Method, loss: Loss, student: Role, teachers: tuple[Role, ...], recipe: Recipe
    ) -> list[str]:
        """Build the objective as a run does, and compute its loss."""
        soft = any(part.mixes for part in recipe.augmentations())
        try:
            return [f"{where}: {p}" for p in self._plays(method, loss, student, teachers, soft, recipe.epochs)]
        except DistilleryError as error:
            return [f"{where}: {error}"]
        except Exception as error:  # whatever the author's code raises
            return [f"{where}: {method.objective} raises {type(error).__name__}: {said(error)}"]

    def _plays(
        self, method: Method, loss: Loss, student: Role, teachers: tuple[Role, ...], soft: bool, epoch: int
    ) -> Iterator[str]:
        names = teachers if loss.needs else ()
        if "strong" in loss.needs and (why := no_levels(self.shape.channels, self.shape.scale)):
            yield f"the strong view of {method.objective} {why}: take another objective (mlkd_single has none)"
            return
        if self.outputs(student, 1).distilled is not None and "distilled" not in loss.needs:
            yield (
                f"{method.objective} does not train the distillation head of {student.architecture}, half of whose "
                "prediction comes from there: choose objective deit or vkd_tokens, or a student without that head"
            )
        context = self._context(student, names)
        objective = loss.build(context)
        batch = self._batch(student, names, loss.needs, soft, epoch)
        supervised, parts, acted = _rehearsed(objective, batch)
        yield from _without_terms(method, loss, supervised, parts)
        if soft and objective.selector is not None:
            yield (
                "a data selection chooses images, and mixed images (mixup, cutmix) are two: override "
                "`augmentation: {then: []}`"
            )
        for name, (kind, _) in loss.plugins.items():
            if not loss.needs:
                yield f"plug-in {name!r} has no effect: {method.objective} has no teacher"
            elif issubclass(kind, Transform) and kind not in acted:
                yield f"plug-in {name!r} has no effect: {method.objective} compares no logits"

    def _context(self, student: Role, teachers: tuple[Role, ...]) -> Context:
        labels = torch.arange(self.shape.train_images) % self.shape.num_classes
        if not teachers:
            return Context(self.shape.num_classes, labels, self.outputs(student, 1))
        outputs, network = self.outputs(teachers[0], 1), self.network(teachers[0])
        width = outputs.pooled.shape[1] if outputs.pooled is not None else None
        on_train = partial(self.on_train, width)
        return Context(self.shape.num_classes, labels, self.outputs(student, 1), outputs, network, on_train)

    def _on_train(self, width: int | None) -> Outputs:
        """In place of a teacher's outputs for all training images."""
        count = self.shape.train_images
        pooled = torch.randn(count, width) if width is not None else None
        return Outputs(torch.randn(count, self.shape.num_classes), pooled)

    def _batch(self, student: Role, teachers: tuple[Role, ...], needs: frozenset[str], soft: bool, epoch: int) -> Batch:
        strong = "strong" in needs
        theirs = tuple(self.outputs(t, ROWS) for t in teachers)
        ours = (self._outputs if student in teachers else self.outputs)(student, ROWS)  # alike, they would agree
        index = torch.arange(ROWS)
        labels = index % self.shape.num_classes
        return Batch(
            torch.eye(self.shape.num_classes)[labels] if soft else labels,
            ours,
            theirs,
            torch.tensor(float(epoch)),  # the last one: no warm-up keeps a term at 0
            index,
            ours if strong else None,
            theirs[0] if strong else None,
        )


def _rehearsed(objective: Objective, batch: Batch) -> tuple[dict[str, Tensor], list[dict[str, Tensor]], set[type]]:
    """Compute all terms; return the supervised ones, those of the distillation part by part, and plug-ins called."""
    acted: set[type] = set()
    parts = [module for module in objective.modules() if isinstance(module, Objective)]
    hooks = [plugin.register_forward_hook(_noting(acted)) for part in parts for plugin in part.plugins]
    try:
        with torch.no_grad():
            objective.train()
            if objective.selector is not None:
                objective.selector(batch)
            supervised = objective.supervised(batch)
            found = objective.by_part(batch) if isinstance(objective, Combined) else [objective.distill(batch)]
            for distilled in found:
                _are_terms(objective, supervised, distilled)
            return supervised, found, acted
    finally:
        for hook in hooks:
            hook.remove()


def _without_terms(
    method: Method, loss: Loss, supervised: dict[str, Tensor], parts: list[dict[str, Tensor]]
) -> Iterator[str]:
    """Name the parts of an objective that add nothing: their weights are 0, or they distil nothing (partner `ce`)."""
    adding = [any(term.any() for term in terms.values()) for terms in parts]
    taught = any(adding) or (not loss.needs and any(term.any() for term in supervised.values()))
    if not taught or (loss.plus and parts[0] and not adding[0]):
        yield f"every term of {method.objective} has weight 0"
    if taught:
        for name, adds in zip(loss.plus, adding[1:], strict=True):
            if not adds:
                yield f"plus.{name}: adds nothing: drop the entry, or give its terms a weight"


def _are_terms(objective: Objective, supervised: Any, distilled: Any) -> None:
    """Raise DistilleryError unless both are scalars by name, and no name is taken twice."""
    for method, terms in (("supervised", supervised), ("distill", distilled)):
        who = f"{type(objective).__name__}.{method}"
        if not isinstance(terms, dict):
            raise DistilleryError(f"{who} returns a {type(terms).__name__}, not a dict of scalars by name")
        for name, term in terms.items():
            if not isinstance(term, Tensor) or term.ndim:
                found = f"a tensor of shape {(*term.shape,)}" if isinstance(term, Tensor) else type(term).__name__
                raise DistilleryError(f"{who} returns {found} as {name!r}, not a scalar tensor: take its mean or sum")
    if both := supervised.keys() & distilled.keys():
        raise DistilleryError(
            f"{type(objective).__name__}.distill has a term {min(both)!r}, as the supervised loss has, which would be "
            "lost: take another name"
        )


def _noting(acted: set[type]) -> Callable[..., None]:
    def note(module: Any, *_: Any) -> None:
        acted.add(type(module))

    return note


def said(error: Exception) -> str:
    """An exception's text on one line."""
    return " ".join(str(error).split())[:200]
