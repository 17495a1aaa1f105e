"""What would fail in a study of fairness: what fails in one of classification, and a source without groups."""

from __future__ import annotations

from distillery.data import SOURCES
from distillery.errors import DistilleryError
from distillery.study.model import Study
from distillery.tasks.classification.rehearsal import rehearse as of_classes
from distillery.tasks.fairness.evaluation import NO_GROUPS


def rehearse(study: Study, images: bool) -> list[str]:
    """Return what would fail, one clause each."""
    problems = of_classes(study, images)
    try:
        grouped = SOURCES[study.data.source].load().grouped
    except DistilleryError as error:
        return [f"data: {error}", *problems]
    return problems if grouped else [f"data.source: {study.data.source} {NO_GROUPS}", *problems]
