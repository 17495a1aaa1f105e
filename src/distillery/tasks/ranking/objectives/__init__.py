"""Losses for recommenders, one file each. `OBJECTIVES` names them; importing this package imports none of them."""

from __future__ import annotations

from distillery.registry import Registry

_HERE = "distillery.tasks.ranking.objectives"

OBJECTIVES = Registry(
    "objective",
    f"{_HERE}.base:RankingObjective",
    {
        name: f"{_HERE}.{target}"
        for name, target in {
            "bpr": "bpr:BPR",
            "cd": "cd:CD",
            "rd": "rd:RD",
            "rrd": "rrd:RRD",
            "unkd": "unkd:UnKD",
        }.items()
    },
)
