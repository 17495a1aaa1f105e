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
from distillery.tasks.rehearsing import misfits, only_trained, through
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
    name, teachers = study.methods[method].objective, study.pairs[pair].teachers
    if not issubclass(loss.main[0], RetrievalObjective):
        yield f"{where}: {name} is no objective of retrieval: take ova, ova_kd or double"
    else:
        acts = "one class, not on sets of labels"
        yield from misfits(where, name, loss, pair, teachers, acts, RetrievalObjective)


def _recipe(where: str, recipe: Recipe) -> Iterator[str]:
    if recipe.validation:
        yield f"{where}: recipe.validation: rows with sets of labels cannot be held out by class: leave it out"
    if recipe.label_smoothing:
        yield f"{where}: recipe.label_smoothing: there is no one class to smooth: leave it out"
    augmentation = recipe.augmentation
    if augmentation.model_dump() != {"pad": 0, "flip": False}:
        yield f"{where}: recipe.augmentation: a row has one view: say {{pad: 0, flip: false}}"
    if recipe.drop_path is not None:
        yield f"{where}: recipe.drop_path: these networks have no stochastic depth: leave it out"
    if recipe.tap_preacts:
        yield f"{where}: recipe.tap_preacts: these networks have no maps: leave it out"
    yield from optimises(where, recipe)
