"""The task `fairness`: classification of samples that belong to groups, measured by the gaps between these too.

It trains, caches and tests as `classification` does; only what is measured in the end differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from distillery.config import Count
from distillery.task import TOP1, Column, Measure, Section
from distillery.tasks.classification import Classification

_HERE = "distillery.tasks.fairness"


class Fairness(Classification):
    """Measured as "What is Left After Distillation?" does (arXiv:2410.08407): students, and their teachers alike."""

    class Config(Classification.Config):
        pairs: Count = 20_000
        """Of test samples, that individual fairness is measured on."""

    measures = (
        TOP1,
        Measure("demographic_parity", "demographic parity difference", higher_is_better=False, digits=4),
        Measure("equalised_odds", "equalised odds difference", higher_is_better=False, digits=4),
        Measure("individual", "individual unfairness", higher_is_better=False, digits=4),
    )
    columns: ClassVar[tuple[Column, ...]] = Classification.columns
    parts: ClassVar[Mapping[str, str]] = {
        **Classification.parts,
        "evaluation": f"{_HERE}.evaluation:FairEvaluation",
        "rehearsal": f"{_HERE}.rehearsal:rehearse",
    }

    def sections(self, cells: Iterable[Any]) -> list[Section]:
        """Gaps of every cell beside those of its teachers, and whether they have a trend in the temperature."""
        from distillery.tasks.fairness.sections import gaps, trends

        cells = list(cells)
        return [gaps(self, cells), *trends(self, cells)]
