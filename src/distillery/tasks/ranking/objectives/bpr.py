"""The student alone, and every teacher."""

from __future__ import annotations

from typing import ClassVar

from distillery.tasks.ranking.objectives.base import RankingObjective


class BPR(RankingObjective):
    """L = ce_weight * BPR + decay * penalty."""

    needs: ClassVar[frozenset[str]] = frozenset()
