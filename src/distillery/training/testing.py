"""Test passes, shared by the fit loop and by whoever measures later, so that both see the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from distillery.data.loader import Loader, Split
from distillery.study.blocks import Recipe
from distillery.training.device import autocast
from distillery.training.parallel import ALONE, Ranks
from distillery.training.trainee import Trainee

BATCH = 1000  # samples; precision and batches decide the last bit


@torch.no_grad()
def predictions(
    predict: Callable[[Any], Any], split: Split, recipe: Recipe, device: torch.device, ranks: Ranks = ALONE
) -> Iterator[tuple[Any, Any]]:
    """Give (prediction, targets) of every batch whose turn is this process's, in the recipe's precision."""
    for inputs, targets in split.batches(BATCH, ranks.rank, ranks.size):
        with autocast(recipe, device):
            prediction = predict(inputs)
        yield prediction, targets


def additive(trainee: Trainee, loader: Loader, recipe: Recipe, ranks: Ranks, names: Sequence[str]) -> dict[str, float]:
    """Test every split where scores are made of sums over samples, those of `task.counted` by these names."""
    trainee.student.eval()
    trainee.objective.eval()

    def predict(inputs: Any) -> Any:
        return trainee.objective.predict(trainee.student(inputs))

    record: dict[str, float] = {}
    for name, split in loader.splits().items():
        sums = {key: torch.zeros((), dtype=torch.float64, device=loader.device) for key in names}
        for prediction, targets in predictions(predict, split, recipe, loader.device, ranks):
            sums = {key: sums[key] + value for key, value in trainee.task.counted(prediction, targets).items()}
        totals = dict(zip(sums, ranks.total(torch.stack([*sums.values()])).tolist(), strict=True))
        record |= {f"{name}_{key}": value for key, value in trainee.task.scores(totals, split.count).items()}
    return record
