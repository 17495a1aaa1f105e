"""Build every cell of a study once and compute its loss on a few drawn images: seconds for hundreds of cells.

What is called valid here does not fail later for a reason that could be known: keys and ranges of a method, whether it
finds in both networks what it compares, whether every plug-in acts, whether a last, incomplete batch can be trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from distillery.config import Problems
from distillery.data import SOURCES, open_source
from distillery.data.arrays import Shape
from distillery.data.augment import Augmentations
from distillery.models import NETWORKS
from distillery.objectives import OBJECTIVES
from distillery.objectives.base import Objective, Selector
from distillery.objectives.build import Loss
from distillery.records.io import DistilleryError, sha256_json
from distillery.study.blocks import Recipe
from distillery.study.model import Study
from distillery.tasks.classification.trial import ROWS, Role, Trial, said
from distillery.tasks.optimises import optimises
from distillery.teachers.released import source_of


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
        if name in registry and (task := registry[name].task):
            yield f"{where}: {name} is of the task {task}, not classification: say `task: {task}`, or take another"


def _problems(study: Study, images: bool) -> Iterator[str]:
    if strange := list(_of_other_tasks(study)):
        yield from strange
        return
    shape, mirrored = None, True
    try:
        source = open_source(study.data.source, study.data.options)
        mirrored, shape = source.mirrored, source.shape()
    except DistilleryError as error:
        if images:
            yield f"data: {error}"
    trial = Trial(shape, whole=not study.data.hidden) if shape else None
    streamed = SOURCES[study.data.source].load().streamed
    yield from _of_cache(study, streamed)
    recipes = {f"teachers.{t}": study.recipe_for_teacher(t) for t in study.teachers}
    recipes |= {f"methods.{m} for {p}": study.recipe_for(p, m) for p in study.pairs for m in study.methods}
    for where, recipe in {sha256_json(r.effective()): (w, r) for w, r in reversed(recipes.items())}.values():
        yield from optimises(where, recipe)
        if not streamed and (idle := {"scale", "ratio"} & {*recipe.augmentation.model_dump()}):
            yield f"{where}: augmentation.{min(idle)}: has no effect: only of streamed images a random part is resized"
        if recipe.augmentation.flip and not mirrored:
            yield f"{where}: augmentation.flip: mirrored, {study.data.source} show another class: say `flip: false`"
        if shape and recipe.augmentation.then:
            yield from _augments(where, recipe, shape)
    if trial:
        yield from _taps(study, trial)
    teachers: dict[str, Role] = {}
    for t in study.teachers:
        problems = list(_of_teacher(study, t, trial, teachers))
        if problems:
            teachers.pop(t, None)
            yield from problems
    for m in study.methods:
        for p in study.pairs:
            yield from _of_cell(study, p, m, trial, teachers, streamed)


def _of_cell(
    study: Study, p: str, m: str, trial: Trial | None, teachers: dict[str, Role], streamed: bool
) -> Iterator[str]:
    """What would fail in training the students of a pair by a method. `teachers`: those with which nothing is wrong."""
    pair, method, recipe = study.pairs[p], study.methods[m].for_pair(p), study.recipe_for(p, m)
    here = f"methods.{m}.pairs.{p}" if p in study.methods[m].pairs else f"methods.{m}"
    try:
        loss = Loss(method)
    except Problems as found:
        yield from (f"{here}: {sentence}" for sentence in found.sentences)
        return
    if study.data.hidden and loss.unlabelled and any(issubclass(k, Selector) for k, _ in loss.plugins.values()):
        yield f"{here}: a selection reads the label of every image, and data.labelled hides some: leave one out"
    if study.data.hidden and loss.unlabelled and any(part.mixes for part in recipe.augmentations()):
        yield f"{here}: mixed images have mixed labels, and data.labelled hides some: leave one of both out"
    yield from _smooths(here, recipe, method.objective, loss)
    faults = loss.faults(recipe.epochs, len(pair.teachers), bool(study.data.hidden))
    yield from (f"{here}: {fault}" for fault in faults)
    yield from _sees(here, recipe, loss, streamed)
    if loss.needs and len(pair.teachers) > 1 and "teachers" not in loss.needs:
        yield f"methods.{m}: {method.objective} learns from one teacher, and pair {p} has {len(pair.teachers)}"
    elif trial:
        student = Role(pair.student)
        problems = [*trial.trains(f"pairs.{p}", student, recipe), *trial.drops(here, student, recipe)]
        yield from problems
        if not problems and teachers.keys() >= {*pair.teachers}:
            roles = tuple(teachers[t] for t in pair.teachers)
            yield from trial.plays(f"methods.{m} for {p}", method, loss, student, roles, recipe)


def _of_cache(study: Study, streamed: bool) -> Iterator[str]:
    """Settings that mean something for the other kind of data only."""
    if streamed and study.cache.dtype == "float16":
        yield "cache.dtype: a replay table is float32 (exact) or int16, and this source is streamed"
    if streamed and study.cache.precision != "float32":
        yield "cache.precision: has no effect: a replay table is computed in float32, and this source is streamed"
    if not streamed and study.cache.dtype == "int16":
        yield f"cache.dtype: a view table is float32 (exact) or float16, and {study.data.source} is not streamed"
    if streamed and study.data.hidden:
        yield "data.labelled: the labels of a streamed source cannot be hidden: take arrays"
    if streamed and "pad" in study.recipe.augmentation.model_fields_set:
        yield "recipe.augmentation.pad: has no effect: of a streamed image a random part is resized"


def _of_teacher(study: Study, name: str, trial: Trial | None, roles: dict[str, Role]) -> Iterator[str]:
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
        wide = 1000 if teacher.classes == "imagenet" else trial and trial.shape.num_classes
        if trial and origin.classes not in (None, wide):
            hint = ", or say `classes: imagenet` if the data are some of ImageNet's" if origin.classes == 1000 else ""
            yield (
                f"{where}: its weights are for {origin.classes} classes, and the data has {trial.shape.num_classes}: "
                f"take weights that were trained on these classes{hint}"
            )
            return
    roles[name] = role
    if trial:
        problems = list(trial.trains(where, role, study.recipe_for_teacher(name)))
        if not problems and role.own and teacher.fallback == "train":
            problems = list(trial.trains(f"{where}.fallback", Role(role.architecture), study.recipe_for_teacher(name)))
        if not problems and (teacher.source == "train" or teacher.fallback == "train"):
            problems = list(trial.drops(where, role, study.recipe_for_teacher(name)))
        yield from problems
        if not problems and teacher.source == "train" and trial.outputs(role, 1).distilled is not None:
            yield (
                f"{where}: it is trained on labels alone, which leaves the distillation head of {teacher.architecture} "
                "as it begins: choose a network without one"
            )
        if not problems and study.cache.pooled and trial.outputs(role, 1).pooled is None:
            yield f"cache.pooled: teacher {name} has no pooled features, so the view table cannot hold them"


def _sees(here: str, recipe: Recipe, loss: Loss, streamed: bool) -> Iterator[str]:
    """Whether there are views to draw by the seed that the recipe names."""
    seen = recipe.augmentation
    if seen.view_seed is not None and not (streamed or seen.pad or seen.flip or seen.then or "strong" in loss.needs):
        yield f"{here}: augmentation.view_seed: has no effect: every image has one view: override it with null"


def _taps(study: Study, trial: Trial) -> Iterator[str]:
    """Whether of the networks that an entry asks for their taps before the activation one then computes otherwise."""
    asked: dict[str, set[str]] = {}

    def ask(architecture: str, recipe: Recipe, *overrides: tuple[str, dict[str, Any]]) -> None:
        """Note the network beside the innermost entry that says so."""
        where = [place for place, said in overrides if "tap_preacts" in said]
        if recipe.tap_preacts:
            asked.setdefault(where[-1] if where else "", set()).add(architecture)

    for t in dict.fromkeys(t for pair in study.pairs.values() for t in pair.teachers):
        if (teacher := study.teachers[t]).source == "train":
            ask(teacher.architecture, study.recipe_for_teacher(t), (f"teachers.{t}.", teacher.recipe))
    for p, pair in study.pairs.items():
        for m, method in study.methods.items():
            places = (f"pairs.{p}.", f"methods.{m}.", f"methods.{m}.pairs.{p}.")
            overrides = zip(places, (pair.recipe, *method.recipes(p)), strict=True)
            ask(pair.student, study.recipe_for(p, m), *overrides)
    for where, networks in asked.items():
        if not any(trial.trains_on(Role(a), ROWS) or trial.taps_twice(a) for a in networks):
            who = f"{networks.pop()} passes no" if len(networks) == 1 else "no network here passes a"
            yield f"{where}recipe.tap_preacts: has no effect: {who} normalisation more often: leave it out"


def _smooths(here: str, recipe: Recipe, objective: str, loss: Loss) -> Iterator[str]:
    """Whether there is a supervised term that smoothed labels act on (see `Objective.smooth`)."""
    kind, config = loss.main
    if not recipe.label_smoothing:
        return
    if kind.supervised is not Objective.supervised:
        yield f"{here}: label_smoothing: {objective} has a supervised term of its own: override it with 0"
    elif config.ce_weight == 0 and not any(issubclass(plugin, Selector) for plugin, _ in loss.plugins.values()):
        yield f"{here}: label_smoothing: has no effect with ce_weight 0: override it with 0"


def _augments(where: str, recipe: Recipe, shape: Shape) -> Iterator[str]:
    """Whether such images can be augmented: an augmentation of the user's own may fail in any way."""
    images = torch.randint(0, 256, (ROWS, shape.channels, shape.height, shape.width), dtype=torch.uint8)
    index = torch.arange(ROWS)
    try:
        augment = Augmentations(recipe, shape.num_classes, Tensor.float, shape.channels, shape.scale)
        found, targets = augment(images, index % shape.num_classes, index, 0, 1)
    except DistilleryError as error:
        yield f"{where}: {error}"
    except Exception as error:
        yield f"{where}: augmentation raises {type(error).__name__}: {said(error)}"
    else:
        wanted = ((ROWS, shape.num_classes) if augment.soft else (ROWS,), images.shape, torch.float32)
        if (targets.shape, found.shape, found.dtype) != wanted:
            yield (
                f"{where}: augmentation makes {found.dtype} images of {tuple(found.shape)} with targets of "
                f"{tuple(targets.shape)} out of {tuple(images.shape)}: it must keep their type and shape"
            )
