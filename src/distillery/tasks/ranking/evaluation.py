"""What is measured about a recommender: recall and NDCG of the best ten, by half of popularity, and their overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from distillery.evaluation.task import Evaluation
from distillery.models.base import Network
from distillery.study.blocks import Recipe
from distillery.tasks.ranking.data import RankData
from distillery.tasks.ranking.models import Recommender
from distillery.tasks.ranking.testing import best_items, scores_of


class RankEvaluation(Evaluation):
    """Outputs are the (n, 10) best items of all users with held-out items, on the CPU: first of those who test.

    They are NaN where embeddings are: such scores rank last, as if nothing were wrong.
    """

    bulk: ClassVar[Mapping[str, DTypeLike]] = {"best": np.int32}

    @torch.no_grad()
    def outputs(
        self, network: Network, data: RankData, recipe: Recipe, predict: Callable[[Any], Any] | None = None
    ) -> Tensor:
        recommender = cast(Recommender, network.to(data.half_of.device))
        best = best_items(recommender, data, torch.cat(_users(data))).cpu()
        return best if all(f.isfinite().all() for f in recommender.factors()) else torch.full(best.shape, torch.nan)

    def measure(self, outputs: Tensor, data: RankData) -> dict[str, Any]:
        """The measures of the test users under `last`, of the validation users under `val`."""
        testing, validating = _users(data)
        parts = outputs.to(testing.device).split([len(testing), len(validating)])
        found = {"last": scores_of(parts[0], testing, data.pairs.test, data)}
        if len(validating):
            found["val"] = scores_of(parts[1], validating, data.pairs.val, data)
        return {**found, "best": outputs.tolist()}

    def compare(self, student: Tensor, teacher: Tensor) -> dict[str, float]:
        """The share of a user's best ten that both recommend, over users."""
        same = (student[:, :, None] == teacher[:, None, :]).any(2).double()
        return {"overlap@10": same.mean().item()}

    def facts(self, data: RankData) -> dict[str, Any]:
        return {"test_images": len(_users(data)[0]), "data": data.facts}

    def truth(self, data: RankData) -> dict[str, np.ndarray]:
        """The users that the rows of `best` belong to, and the held-out pairs."""
        found = {"users": torch.cat(_users(data))}
        for name, pairs in (("test", data.pairs.test), ("val", data.pairs.val)):
            found |= {f"{name}_user": pairs.user, f"{name}_item": pairs.item}
        return {name: ids.cpu().numpy().astype(np.int32) for name, ids in found.items()}

    def multiply_accumulates(self, network: Network, data: RankData) -> int:
        """Of scoring all items for one user; LightGCN spreads its embeddings once for all users, before."""
        return data.pairs.items * cast(Recommender, network).item.shape[1]


def _users(data: RankData) -> tuple[Tensor, Tensor]:
    """The users who test and those who validate, in ascending order each."""
    return data.pairs.test.user.unique(), data.pairs.val.user.unique()
