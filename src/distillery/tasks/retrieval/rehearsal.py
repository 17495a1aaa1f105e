"""What would fail in a study of retrieval: keys of methods, kinds of components, recipe keys without effect."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from distillery.data import SOURCES, open_source
from distillery.data.multilabel import Multilabel
from distillery.errors import DistilleryError
from distillery.models import NETWORKS
from distillery.objectives.build import Loss
from distillery.study.blocks import Recipe
from distillery.study.model import Study
from distillery.tasks.optimises import optimises
from distillery.tasks.rehearsing import only_trained, through
from distillery.tasks.retrieval.objectives.base import RetrievalObjective


def rehearse(study: Study, images: bool) -> list[str]:
    """Return what would fail, one clause each; with `images` the file of the data must be there."""
    return list(_problems(study, images))


def _problems(study: Study, images: bool) -> Iterator[str]:
    if not issubclass(SOURCES[study.data.source].load(), Multilabel):
        yield f"data.source: {study.data.source} has no sets of labels: take multilabel"
    elif images:
        try:
            open_source(study.data.source, study.data.options).shape()
        except DistilleryError as error:
            yield f"data: {error}"
    if study.cache.pooled:
        yield "cache.pooled: no objective of retrieval reads pooled features: leave it out"
    yield from only_trained(study, "none is released")
    yield from through(study, _network, _recipe, partial(_cell, study))


def _network(where: str, architecture: str) -> Iterator[str]:
    found = NETWORKS[architecture]
    if not found.placed and found.module != "distillery.models.mlp":
        yield f"{where}: {architecture} takes no rows of features: take linear or a perceptron, such as mlp1_w64"


def _cell(study: Study, where: str, method: str, pair: str, loss: Loss) -> Iterator[str]:
    kind, config = loss.main
    name, teachers = study.methods[method].objective, study.pairs[pair].teachers
    if not issubclass(kind, RetrievalObjective):
        yield f"{where}: {name} is no objective of retrieval: take ova, ova_kd or double"
    elif loss.plugins or loss.plus:
        yield f"{where}: plug-ins and partners act on one class, not on sets of labels: leave them out"
    elif kind.needs and len(teachers) > 1:
        yield f"{where}: {name} learns from one teacher, and pair {pair} has {len(teachers)}"
    elif not any(v for key, v in config if key.endswith("weight")):
        yield f"{where}: every term of {name} has weight 0"
    elif kind.needs and not all(v for key, v in config if key.endswith("weight") and key != "ce_weight"):
        yield f"{where}: the distillation term of {name} has weight 0"


def _recipe(where: str, recipe: Recipe) -> Iterator[str]:
    if recipe.validation:
        yield f"{where}: recipe.validation: rows with sets of labels cannot be held out by class: leave it out"
    if recipe.label_smoothing:
        yield f"{where}: recipe.label_smoothing: there is no one class to smooth: leave it out"
    augmentation = recipe.augmentation
    if augmentation.pad or augmentation.flip or augmentation.then:
        yield f"{where}: recipe.augmentation: a row has one view: say {{pad: 0, flip: false}}"
    yield from optimises(where, recipe)
