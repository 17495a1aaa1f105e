"""What would fail in a study with known class probabilities: what fails in one of classification, and other sources."""

from __future__ import annotations

from collections.abc import Iterator

from distillery.data import SOURCES
from distillery.models import NETWORKS
from distillery.study.model import Study
from distillery.tasks.classification.rehearsal import rehearse as of_classes


def rehearse(study: Study, images: bool) -> list[str]:
    """Return what would fail, one clause each."""
    return [*_problems(study), *of_classes(study, images)]


def _problems(study: Study) -> Iterator[str]:
    from distillery.data.gaussian import Gaussian
    from distillery.models.bayes import Bayes

    if not issubclass(SOURCES[study.data.source].load(), Gaussian):
        yield f"data.source: the class probabilities of {study.data.source} are not known: take gaussian"
    for name, pair in study.pairs.items():
        if issubclass(NETWORKS[pair.student].load(), Bayes):
            yield f"pairs.{name}: {pair.student} is a formula, which nobody trains: take it as a teacher"
        for method in study.methods:
            if study.recipe_for(name, method).validation:
                yield f"methods.{method} for {name}: recipe.validation: has no effect here: leave it out"
