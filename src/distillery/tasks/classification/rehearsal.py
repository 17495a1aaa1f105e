"""Build every cell of a study once and compute its loss on a few drawn images: seconds for hundreds of cells.

What is called valid here does not fail later for a reason that could be known: keys and ranges of a method, whether it
finds in both networks what it compares, whether every plug-in acts, whether a last, incomplete batch can be trained on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from distillery import models
from distillery.config import Problems
from distillery.data import SOURCES, open_source
from distillery.data.arrays import Shape
from distillery.data.augment import Augmentations
from distillery.models import NETWORKS
from distillery.models.base import Network, Outputs
from distillery.models.drop_path import set_drop_path
from distillery.models.seeing import see
from distillery.objectives import OBJECTIVES
from distillery.objectives.base import Batch, Context, Objective, Selector, Transform
from distillery.objectives.build import Loss
from distillery.records.io import DistilleryError, sha256_json
from distillery.records.preprocessing import Preprocessing
from distillery.study.blocks import Method, Recipe
from distillery.study.model import Study
from distillery.teachers.released import source_of
from distillery.training.optimizer import make_optimizer

_BATCH = 4  # rows of the rehearsed batch: two or more, so that statistics over it exist


def rehearse(study: Study, images: bool) -> list[str]:
    """Return what would fail, one clause each.

    With `images` the data must be there, where they are the user's own; otherwise nothing is said about them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(_problems(study, images))


def _of_other_tasks(study: Study) -> Iterator[str]:
    """Components that are found by name, but take neither images nor classes."""
    named = [("data.source", SOURCES, study.data.source)]
    named += [(f"teachers.{t}.architecture", NETWORKS, teacher.architecture) for t, teacher in study.teachers.items()]
    named += [(f"pairs.{p}.student", NETWORKS, pair.student) for p, pair in study.pairs.items()]
    for m, method in study.methods.items():
        named += [(f"methods.{m}.objective", OBJECTIVES, method.objective)]
        named += [(f"methods.{m}.plus", OBJECTIVES, partner) for partner in method.plus]
    for where, registry, name in named:
        if name in registry and name not in tuple(registry):  # a row of another task: found, but not listed
            yield f"{where}: {name} is of another task than classification: say `task:` too, or take another one"


def _problems(study: Study, images: bool) -> Iterator[str]:
    if strange := list(_of_other_tasks(study)):
        yield from strange
        return
    shape = None
    try:
        shape = open_source(study.data.source, study.data.options).shape()
    except DistilleryError as error:
        if images:
            yield f"data: {error}"
    stage = _Stage(shape) if shape else None
    streamed = SOURCES[study.data.source].load().streamed
    yield from _of_cache(study, streamed)
    recipes = {f"teachers.{t}": study.recipe_for_teacher(t) for t in study.teachers}
    recipes |= {f"methods.{m} for {p}": study.recipe_for(p, m) for p in study.pairs for m in study.methods}
    for where, recipe in {sha256_json(r.effective()): (w, r) for w, r in reversed(recipes.items())}.values():
        yield from _optimises(where, recipe)
        if shape and recipe.augmentation.then:
            yield from _augments(where, recipe, shape)
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
            if streamed and "strong" in loss.needs:
                yield f"{here}: {method.objective} needs a second view, which streamed images have not: take arrays"
                continue
            recipe = study.recipe_for(p, m)
            yield from _smooths(here, recipe, method.objective, loss)
            if loss.needs and len(pair.teachers) > 1 and "teachers" not in loss.needs:
                yield f"methods.{m}: {method.objective} learns from one teacher, and pair {p} has {len(pair.teachers)}"
            elif stage:
                student = Role(pair.student)
                problems = [*stage.trains(f"pairs.{p}", student, recipe), *stage.drops(here, student, recipe)]
                yield from problems
                if not problems and teachers.keys() >= {*pair.teachers}:
                    roles = tuple(teachers[t] for t in pair.teachers)
                    yield from stage.plays(f"methods.{m} for {p}", method, loss, student, roles, recipe)


def _of_cache(study: Study, streamed: bool) -> Iterator[str]:
    """Settings that mean something for the other kind of data only."""
    if streamed and study.cache.dtype == "float16":
        yield "cache.dtype: a replay table is float32 (exact) or int16, and this source is streamed"
    if not streamed and study.cache.dtype == "int16":
        yield f"cache.dtype: a view table is float32 (exact) or float16, and {study.data.source} is not streamed"
    if streamed and "pad" in study.recipe.augmentation.model_fields_set:
        yield "recipe.augmentation.pad: has no effect: of a streamed image a random part is resized"


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
        except DistilleryError as error:
            yield f"{where}: {error}"
            return
        role = Role(teacher.architecture, origin.preprocessing)
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
        if not problems and (teacher.source == "train" or teacher.fallback == "train"):
            problems = list(stage.drops(where, role, study.recipe_for_teacher(name)))
        yield from problems
        if not problems and teacher.source == "train" and stage.outputs(role, 1).distilled is not None:
            yield (
                f"{where}: it is trained on labels alone, which leaves the distillation head of {teacher.architecture} "
                "as it begins: choose a network without one"
            )
        if not problems and study.cache.pooled and stage.outputs(role, 1).pooled is None:
            yield f"cache.pooled: teacher {name} has no pooled features, so the view table cannot hold them"


def _smooths(here: str, recipe: Recipe, objective: str, loss: Loss) -> Iterator[str]:
    """Whether there is a supervised term that smoothed labels act on (see `Objective.smooth`)."""
    kind, config = loss.main
    if not recipe.label_smoothing:
        return
    if kind.supervised is not Objective.supervised:
        yield f"{here}: label_smoothing: {objective} has a supervised term of its own: override it with 0"
    elif config.ce_weight == 0 and not any(issubclass(plugin, Selector) for plugin, _ in loss.plugins.values()):
        yield f"{here}: label_smoothing: has no effect with ce_weight 0: override it with 0"


def _optimises(where: str, recipe: Recipe) -> Iterator[str]:
    """Whether the optimiser can be made: one of the user's own may fail in any way."""
    part = recipe.part("optimizer")
    try:
        make_optimizer([("weight", torch.nn.Parameter(torch.ones(2, 2)))], recipe, torch.device("cpu"))
    except DistilleryError as error:
        yield f"{where}: {error}"
    except Exception as error:
        name = type(part).__name__
        yield f"{where}: optimizer {name} raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _augments(where: str, recipe: Recipe, shape: Shape) -> Iterator[str]:
    """Whether such images can be augmented: an augmentation of the user's own may fail in any way."""
    images = torch.randint(0, 256, (_BATCH, shape.channels, shape.height, shape.width), dtype=torch.uint8)
    index = torch.arange(_BATCH)
    try:
        augment = Augmentations(recipe, shape.num_classes, Tensor.float, shape.channels, shape.scale)
        found, targets = augment(images, index % shape.num_classes, index, 0, 1)
    except DistilleryError as error:
        yield f"{where}: {error}"
    except Exception as error:
        yield f"{where}: augmentation raises {type(error).__name__}: {_said(error)}"
    else:
        wanted = ((_BATCH, shape.num_classes) if augment.soft else (_BATCH,), images.shape, torch.float32)
        if (targets.shape, found.shape, found.dtype) != wanted:
            yield (
                f"{where}: augmentation makes {found.dtype} images of {tuple(found.shape)} with targets of "
                f"{tuple(targets.shape)} out of {tuple(images.shape)}: it must keep their type and shape"
            )


class _Stage:
    """Untrained networks and batches of one data set, on the CPU."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
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
            network.train()(self._images(_BATCH))
        return network.eval()

    def _images(self, count: int) -> Tensor:
        return torch.randn(count, self.shape.channels, self.shape.height, self.shape.width)

    def _outputs(self, role: Role, rows: int) -> Outputs:
        with torch.no_grad():
            outputs: Outputs = self.network(role).eval()(self._images(rows), preacts=True)
        return outputs

    def _trains_on(self, role: Role, rows: int) -> str:
        """Say why a batch of so many images cannot be trained on; "" if it can."""
        shape, size = self.shape, role.own.size if role.own else None
        try:
            network = self.network(role)
            with torch.no_grad():
                network.train()(self._images(rows))
        except DistilleryError as error:
            return str(error)
        except Exception as error:  # whatever the author's code raises
            images = f"{size}x{size}" if size else f"{shape.height}x{shape.width}"
            said = _said(error) or type(error).__name__
            return f"{role.architecture} does not take images of {images} with {shape.channels} channels: {said}"
        network.eval()
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

    def drops(self, where: str, role: Role, recipe: Recipe) -> Iterator[str]:
        """Whether the network has the stochastic depth that the recipe sets a rate of."""
        if recipe.drop_path is not None and not self.trains_on(role, _BATCH):
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
            return [f"{where}: {problem}" for problem in self._plays(method, loss, student, teachers, soft)]
        except DistilleryError as error:
            return [f"{where}: {error}"]
        except Exception as error:  # whatever the author's code raises
            return [f"{where}: {method.objective} raises {type(error).__name__}: {_said(error)}"]

    def _plays(
        self, method: Method, loss: Loss, student: Role, teachers: tuple[Role, ...], soft: bool
    ) -> Iterator[str]:
        names = teachers if loss.needs else ()
        if self.outputs(student, 1).distilled is not None and "distilled" not in loss.needs:
            yield (
                f"{method.objective} does not train the distillation head of {student.architecture}, half of whose "
                "prediction comes from there: choose objective deit or vkd_tokens, or a student without that head"
            )
        context = self._context(student, names)
        objective = loss.build(context)
        terms, acted = _rehearsed(objective, self._batch(student, names, loss.needs, soft))
        if loss.needs and not terms:
            yield f"every term of {method.objective} has weight 0"
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

    def _batch(self, student: Role, teachers: tuple[Role, ...], needs: frozenset[str], soft: bool) -> Batch:
        strong = "strong" in needs
        ours, theirs = self.outputs(student, _BATCH), tuple(self.outputs(t, _BATCH) for t in teachers)
        index = torch.arange(_BATCH)
        labels = index % self.shape.num_classes
        return Batch(
            torch.eye(self.shape.num_classes)[labels] if soft else labels,
            ours,
            theirs,
            torch.ones(()),
            index,
            ours if strong else None,
            theirs[0] if strong else None,
        )


def _rehearsed(objective: Objective, batch: Batch) -> tuple[dict[str, Tensor], set[type]]:
    """Compute all terms; return those of the distillation, and the classes of the plug-ins that were called."""
    acted: set[type] = set()
    parts = [module for module in objective.modules() if isinstance(module, Objective)]
    hooks = [plugin.register_forward_hook(_noting(acted)) for part in parts for plugin in part.plugins]
    try:
        with torch.no_grad():
            objective.train()
            if objective.selector is not None:
                objective.selector(batch)
            objective.supervised(batch)
            return objective.distill(batch), acted
    finally:
        for hook in hooks:
            hook.remove()


def _noting(acted: set[type]) -> Callable[..., None]:
    def note(module: Any, *_: Any) -> None:
        acted.add(type(module))

    return note


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
