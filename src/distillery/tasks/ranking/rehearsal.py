"""What would fail in a study of recommenders: keys of methods, kinds of components, recipe keys without effect."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from distillery.data import open_source
from distillery.models import NETWORKS
from distillery.objectives.build import Loss
from distillery.study.blocks import Recipe
from distillery.study.model import Study
from distillery.tasks.optimises import optimises
from distillery.tasks.ranking.models import Recommender
from distillery.tasks.ranking.objectives.base import RankingObjective
from distillery.tasks.ranking.source import Interactions
from distillery.tasks.rehearsing import misfits, only_trained, through


def rehearse(study: Study, images: bool) -> list[str]:
    """Return what would fail, one clause each; with `images` the files of the data must be there."""
    return list(_problems(study, images))


def _problems(study: Study, images: bool) -> Iterator[str]:
    source = open_source(study.data.source, study.data.options)
    if not isinstance(source, Interactions):
        yield f"data.source: {study.data.source} has no pairs of users and items: take citeulike or interactions"
    elif images:
        yield from (
            f"data: there is no file {path}: name it in `data.path`" for path in source.files() if not path.is_file()
        )
    yield from only_trained(study, "no recommender is released")
    yield from through(study, _network, _recipe, partial(_cell, study))


def _network(where: str, architecture: str) -> Iterator[str]:
    if not issubclass(NETWORKS[architecture].load(), Recommender):
        yield f"{where}: {architecture} takes images: take a recommender, such as bprmf_d10 or lightgcn_d10"


def _cell(study: Study, where: str, method: str, pair: str, loss: Loss) -> Iterator[str]:
    name, teachers = study.methods[method].objective, study.pairs[pair].teachers
    if not issubclass(loss.main[0], RankingObjective):
        yield f"{where}: {name} is no objective of recommenders: take bpr, rd, cd, rrd or unkd"
        return
    yield from misfits(where, name, loss, pair, teachers, "classes, not on rankings", RankingObjective)


def _recipe(where: str, recipe: Recipe) -> Iterator[str]:
    if recipe.validation:
        yield f"{where}: recipe.validation: has no effect, since `data.val_users` says who validates: leave it out"
    if recipe.precision == "bfloat16":
        yield f"{where}: recipe.precision: recommenders train in float32, tf32 or float64"
    if recipe.label_smoothing:
        yield f"{where}: recipe.label_smoothing: there are no classes to smooth: leave it out"
    if recipe.augmentation.model_fields_set:
        yield f"{where}: recipe.augmentation: there are no images to change: leave it out"
    if recipe.drop_path is not None:
        yield f"{where}: recipe.drop_path: recommenders have no stochastic depth: leave it out"
    if recipe.tap_preacts:
        yield f"{where}: recipe.tap_preacts: recommenders have no maps: leave it out"
    yield from optimises(where, recipe)
