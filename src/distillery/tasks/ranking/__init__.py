"""The task `ranking`: (user, item) pairs in, the items that a user has not chosen yet out, the likeliest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from distillery.task import Column, Measure, Task

_HERE = "distillery.tasks.ranking"


class Ranking(Task):
    """Recommenders score items for users and are judged by the best ten of all unseen items; fractions of 1.

    The measures are those of UnKD's tables. Popular and unpopular items are the two halves of the training pairs.
    """

    measures = (
        Measure("recall@10", "test recall@10", digits=4),
        Measure("ndcg@10", "test NDCG@10", digits=4, short="NDCG@10"),
        Measure("recall@10_popular", "test recall@10 of popular items", digits=4),
        Measure("recall@10_unpopular", "test recall@10 of unpopular items", digits=4),
        Measure("popular_share", "popular items among the best ten", higher_is_better=False, digits=3),
    )
    columns = (
        Column("val_recall@10", "recall@10 of the validation users", "val.recall@10"),
        Column("val_ndcg@10", "NDCG@10 of the validation users", "val.ndcg@10", shown=True),
        # with the first teacher, which is the only one
        Column("overlap", "share of the best ten that the teacher recommends too", "fidelity.*.overlap@10", shown=True),
    )
    plain = "bpr"
    parts: ClassVar[Mapping[str, str]] = {
        "training": f"{_HERE}.training:RankTraining",
        "evaluation": f"{_HERE}.evaluation:RankEvaluation",
        "cache": "distillery.tasks.plain:keep_nothing",  # a few lists are ranked where they are needed, in seconds
        "rehearsal": f"{_HERE}.rehearsal:rehearse",
    }
