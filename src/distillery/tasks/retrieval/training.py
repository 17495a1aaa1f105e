"""Training of networks that retrieve labels: what is counted in a test, and what is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillery.data.loader import Loader
from distillery.study.blocks import Recipe
from distillery.tasks.classification.training import ClassTraining
from distillery.tasks.ranking.metrics import top_items
from distillery.tasks.retrieval.data import SetData
from distillery.tasks.retrieval.loader import SetLoader
from distillery.training.parallel import ALONE, Ranks
from distillery.training.testing import additive
from distillery.training.trainee import Trainee

BEST = (1, 3, 5)


def best(scores: Tensor) -> Tensor:
    """The five best labels of each row of (N, L) scores, (N, 5); of equal ones the first, on every device."""
    return top_items(scores, min(max(BEST), scores.shape[1]))


def hits_at(scores: Tensor, sets: Tensor) -> dict[int, Tensor]:
    """How many of the k best of (N, L) scores are in each row's set, over k: (N,) float64 by k; (N, L) flags in."""
    right = sets.gather(1, best(scores)).double()
    return {k: right[:, :k].sum(1) / k for k in BEST}


class RetrievalTraining(ClassTraining):
    """Networks score labels, (B, L); targets are (B, L) flags. Teachers are read from their view tables."""

    def seen(self, prediction: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {}

    def counted(self, prediction: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {f"precision@{k}": hits.sum() for k, hits in hits_at(prediction.float(), targets).items()}

    def scores(self, sums: Mapping[str, float], count: int) -> dict[str, float]:
        return {name: value / (count / 100) for name, value in sums.items()}

    def test(self, trainee: Trainee, loader: Loader, recipe: Recipe, ranks: Ranks = ALONE) -> dict[str, float]:
        """Precision at 1, 3 and 5 in percent."""
        return additive(trainee, loader, recipe, ranks, [f"precision@{k}" for k in BEST])

    def load(self, path: Path, sha256: str, recipe: Recipe, device: torch.device) -> SetData:
        return SetData.load(path, sha256=sha256).to(device)

    def loader(self, data: Any, recipe: Recipe) -> Loader:
        return SetLoader(data, recipe)
