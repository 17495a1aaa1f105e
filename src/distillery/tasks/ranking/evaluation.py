"""What is measured about a recommender: recall and NDCG of the best ten, by half of popularity, and their overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import DTypeLike
from torch import Tensor

from distillery.evaluation.task import Evaluation
from distillery.models.base import Network
from distillery.study.blocks import Recipe
from distillery.tasks.ranking.data import RankData
from distillery.tasks.ranking.models import Recommender
from distillery.tasks.ranking.testing import best_items, scores_of


class RankEvaluation(Evaluation):
    """Outputs are the (n, 10) best items of all test users, on the CPU."""

    bulk: ClassVar[Mapping[str, DTypeLike]] = {"best": np.int32}

    def outputs(
        self, network: Network, data: RankData, recipe: Recipe, predict: Callable[[Any], Any] | None = None
    ) -> Tensor:
        device = data.half_of.device
        return best_items(cast(Recommender, network.to(device)), data, data.pairs.test.user.unique()).cpu()

    def measure(self, outputs: Tensor, data: RankData) -> dict[str, Any]:
        users = data.pairs.test.user.unique()
        last = scores_of(outputs.to(users.device), users, data.pairs.test, data)
        return {"last": last, "best": outputs.tolist()}

    def compare(self, student: Tensor, teacher: Tensor) -> dict[str, float]:
        """The share of a user's best ten that both recommend, over users."""
        same = (student[:, :, None] == teacher[:, None, :]).any(2).double()
        return {"overlap@10": same.mean().item()}

    def facts(self, data: RankData) -> dict[str, Any]:
        return {"test_images": int((data.pairs.test.degree > 0).sum()), "data": data.facts}

    def truth(self, data: RankData) -> dict[str, np.ndarray]:
        test = data.pairs.test
        return {"user": test.user.cpu().numpy().astype(np.int32), "item": test.item.cpu().numpy().astype(np.int32)}

    def multiply_accumulates(self, network: Network, data: RankData) -> int:
        """Of scoring all items for one user; LightGCN spreads its embeddings once for all users, before."""
        return data.pairs.items * cast(Recommender, network).item.shape[1]
