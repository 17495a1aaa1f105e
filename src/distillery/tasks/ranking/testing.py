"""Testing a recommender on all users of a split, shared by the fit loop and by whoever measures later."""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.tasks.ranking.data import RankData
from distillery.tasks.ranking.files import BEST
from distillery.tasks.ranking.interactions import Pairs
from distillery.tasks.ranking.metrics import Ranking, measure, recommend
from distillery.tasks.ranking.models import Recommender


@torch.no_grad()
def best_items(network: Recommender, data: RankData, users: Tensor) -> Tensor:
    """The ten items of highest score that each of (n,) users has no training pair with, (n, 10)."""
    user, item = (f.float() for f in network.eval().factors())
    return recommend(lambda part: user[part] @ item.T, users, data.pairs.train, BEST)


def scores_of(best: Tensor, users: Tensor, held: Pairs, data: RankData) -> dict[str, float]:
    """The measures of the task for recommendations to users."""
    return named(measure(best, users, held, data.half_of))


def named(ranking: Ranking) -> dict[str, float]:
    by_half = (*ranking.recall_by_group, 0.0)  # a single group where nothing can be cut
    return {
        "recall@10": ranking.recall,
        "ndcg@10": ranking.ndcg,
        "recall@10_popular": by_half[0],
        "recall@10_unpopular": by_half[1],
        "popular_share": ranking.share_by_group[0],
    }
