"""What would fail in a study of detectors: data, keys of methods, kinds of components, networks that do not match."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import torch

from distillery.config import Problems
from distillery.data import open_source
from distillery.errors import DistilleryError
from distillery.errors.words import nearest
from distillery.models import NETWORKS
from distillery.models.drop_path import set_drop_path
from distillery.objectives.base import Context
from distillery.objectives.build import Loss, needs
from distillery.study.blocks import Recipe
from distillery.study.model import Study
from distillery.task import task_of
from distillery.tasks.detection import Detection
from distillery.tasks.detection.augment import SizeGated
from distillery.tasks.detection.detections import Detections, Detector, Pictures
from distillery.tasks.detection.objectives.base import Cost, Detect
from distillery.tasks.detection.source import Boxed
from distillery.tasks.detection.training import build
from distillery.tasks.optimises import optimises
from distillery.tasks.rehearsing import distilling, through

SIDE = 64  # of the black image that networks are tried on
CLASSES = 3


def rehearse(study: Study, images: bool) -> list[str]:
    """Return what would fail, one clause each; with `images` the files of the data must be there."""
    return list(dict.fromkeys(_problems(study, images)))


def _problems(study: Study, images: bool) -> Iterator[str]:
    source, task = open_source(study.data.source, study.data.options), task_of(study.task)
    if not isinstance(source, Boxed):
        yield f"data.source: {study.data.source} has no boxes: take coco, yolo or voc"
    elif images:
        try:
            found = source.listing()
            lost = [item.path for items in found.items.values() for item in items if not item.path.is_file()]
            if lost:
                yield f"data: there is no file {lost[0]}" + (f", nor {len(lost) - 1} others" if lost[1:] else "")
        except DistilleryError as error:
            yield f"data: {error}"
    twins = isinstance(task, Detection) and task.config.adversarial is not None
    if twins and not _asks_for_twins(study):
        yield "task.adversarial: has no effect: no method needs adversarial images: leave it out"
    if isinstance(task, Detection):
        yield from _starts(study, task, images)
    yield from _drops(study)
    yield from through(study, _network, _recipe, partial(_cell, study, twins))


def _asks_for_twins(study: Study) -> bool:
    try:
        return any("strong" in needs(method.for_pair(p)) for method in study.methods.values() for p in study.pairs)
    except Problems:
        return True  # they are told where methods are asked


def _starts(study: Study, task: Detection, images: bool) -> Iterator[str]:
    """What `task.start` names in vain."""
    trained = {t.architecture for t in study.teachers.values() if t.source == "train"}
    trained |= {pair.student for pair in study.pairs.values()}
    for architecture in task.config.start:
        if architecture not in trained:
            said = nearest(architecture, sorted(trained))
            yield f"task.start.{architecture}: has no effect: no such network is trained here: {said}"
        for path in task.files(architecture) if images else ():
            if not path.is_file():
                yield f"task.start.{architecture}: there is no file {path}: name it in `path`"


def _drops(study: Study) -> Iterator[str]:
    """Whether networks have the stochastic depth that a recipe sets."""
    asked = [(f"teachers.{t}", of.architecture, study.recipe_for_teacher(t)) for t, of in study.teachers.items()]
    asked += [(f"pairs.{p}", study.pairs[p].student, study.recipe_for(p, m)) for p, m, _ in study.cells()]
    for where, architecture, recipe in asked:
        if recipe.drop_path is not None and issubclass(NETWORKS[architecture].load(), Detector):
            try:
                set_drop_path(build(architecture, CLASSES), recipe.drop_path)
            except DistilleryError as error:
                yield f"{where}: recipe.drop_path: {error}"


def _network(where: str, architecture: str) -> Iterator[str]:
    if not issubclass(NETWORKS[architecture].load(), Detector):
        yield f"{where}: {architecture} finds no objects: take a detector, such as vidt_nano or retinanet_r50"


def _cell(study: Study, twins: bool, where: str, method: str, pair: str, loss: Loss) -> Iterator[str]:
    name, student = study.methods[method].objective, study.pairs[pair].student
    teachers = [study.teachers[t].architecture for t in study.pairs[pair].teachers]
    kind, config = loss.main
    if not issubclass(kind, Detect):
        yield f"{where}: {name} is no objective of detectors: take detect, vkd_detection, fgd, ikd"
        return
    if loss.plugins:
        yield f"{where}: plug-ins act on the logits of classes, not on boxes: leave them out"
    if not (config.ce_weight or loss.needs):
        yield f"{where}: every term of {name} has weight 0"
    for each, (of, keys) in {name: loss.main, **{f"plus.{p}": read for p, (_, read) in loss.plus.items()}}.items():
        weights = distilling(keys, Detect)
        if of.needs and weights and not any(weights):
            yield f"{where}: the distillation term of {each} has weight 0"
        if each != name and getattr(keys, "inherit", False):
            yield f"{where}: {each}.inherit: a partner hands on no weights: set it to false"
    for partner, (_, (each, _)) in loss.plus.items():
        if not issubclass(each, Detect) or each is Detect:
            yield f"{where}: plus.{partner}: distils nothing into a detector: take one that does, such as fgd"
            return
    if loss.needs and len(teachers) > 1:
        yield f"{where}: {name} learns from one teacher, and pair {pair} has {len(teachers)}"
        return
    if "strong" in loss.needs and not twins:
        said = "task: {name: detection, adversarial: {}}"
        yield f"{where}: {name} needs adversarial images: say `{said}`"
    try:
        known = [_outputs(architecture) for architecture in (student, *(teachers if loss.needs else []))]
        loss.build(Context(CLASSES, torch.zeros(0), known[0], known[1] if len(known) > 1 else None))
    except DistilleryError as error:
        yield f"{where} for {pair}: {error}"
        return
    if known[0].head != "set" and (config.matching, config.losses) != (Cost(), Cost()):
        yield f"{where} for {pair}: matching and losses: have no effect on {student}, which predicts no sets"


@cache
@torch.no_grad()
def _outputs(architecture: str) -> Detections:
    """What a fresh network gives for a black image."""
    pictures = Pictures(torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, SIDE, SIDE, dtype=torch.bool))
    return build(architecture, CLASSES).eval()(pictures)


def _recipe(where: str, recipe: Recipe) -> Iterator[str]:
    for key in ("pad", "scale", "ratio"):
        if key in recipe.augmentation.model_fields_set:
            said = "`data.scales` and `data.crop` say how images are seen"
            yield f"{where}: recipe.augmentation.{key}: has no effect: {said}"
    for part in recipe.augmentations():
        if not isinstance(part, SizeGated):
            yield f"{where}: recipe.augmentation.then: {type(part).__name__} moves no boxes: only size_gated does"
    if recipe.label_smoothing:
        yield f"{where}: recipe.label_smoothing: has no effect on a detector's losses: leave it out"
    if recipe.tap_preacts:
        yield f"{where}: recipe.tap_preacts: has no effect on a detector: leave it out"
    yield from optimises(where, recipe)
