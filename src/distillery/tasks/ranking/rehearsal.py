"""What would fail in a study of recommenders: keys of methods, kinds of components, recipe keys without effect."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from distillery.config import Problems
from distillery.data import open_source
from distillery.errors import DistilleryError
from distillery.objectives.build import Loss
from distillery.study.blocks import Recipe
from distillery.study.model import Study
from distillery.tasks.ranking.objectives.base import RankingObjective
from distillery.training.optimizer import make_optimizer


def rehearse(study: Study, images: bool) -> list[str]:
    """Return what would fail, one clause each; with `images` the files of the data must be there."""
    return list(_problems(study, images))


def _problems(study: Study, images: bool) -> Iterator[str]:
    source = open_source(study.data.source, study.data.options)
    if images:
        yield from (f"data: there is no file {path}" for path in source.files() if not path.is_file())
    for name, teacher in study.teachers.items():
        if teacher.source == "fetch":
            yield f"teachers.{name}.source: no recommender is released: train it"
        yield from _recipe(f"teachers.{name}", study.recipe_for_teacher(name))
    for m in study.methods:
        for p, pair in study.pairs.items():
            method = study.methods[m].for_pair(p)
            yield from _recipe(f"methods.{m} for {p}", study.recipe_for(p, m))
            try:
                loss = Loss(method)
            except Problems as found:
                yield from (f"methods.{m}: {sentence}" for sentence in found.sentences)
                continue
            kind, _ = loss.main
            if not issubclass(kind, RankingObjective):
                yield f"methods.{m}: {method.objective} is no objective of recommenders"
            elif loss.plugins or loss.plus:
                yield f"methods.{m}: plug-ins and partners act on classes, not on rankings: leave them out"
            elif kind.lists is not None and len(pair.teachers) > 1:
                yield f"methods.{m}: {method.objective} learns from one teacher, and pair {p} has {len(pair.teachers)}"


def _recipe(where: str, recipe: Recipe) -> Iterator[str]:
    if recipe.validation:
        yield f"{where}: recipe.validation: has no effect, since `data.val_users` says who validates: leave it out"
    if recipe.label_smoothing:
        yield f"{where}: recipe.label_smoothing: there are no classes to smooth: leave it out"
    try:
        make_optimizer([("weight", torch.nn.Parameter(torch.ones(2, 2)))], recipe, torch.device("cpu"))
    except DistilleryError as error:
        yield f"{where}: {error}"
