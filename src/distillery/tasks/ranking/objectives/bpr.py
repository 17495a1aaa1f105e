"""BPR: the student trained alone, as every teacher is: what a user chose above what was not chosen."""

from __future__ import annotations

from typing import ClassVar

from distillery.tasks.ranking.objectives.base import RankingObjective


class BPR(RankingObjective):
    """L = ce_weight * BPR + decay * penalty."""

    needs: ClassVar[frozenset[str]] = frozenset()
