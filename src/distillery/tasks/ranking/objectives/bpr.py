"""The student alone, and every teacher."""

from __future__ import annotations

from distillery.tasks.ranking.objectives.base import RankingObjective


class BPR(RankingObjective):
    """L = BPR + decay * penalty: no teacher."""
