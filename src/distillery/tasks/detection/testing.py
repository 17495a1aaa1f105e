"""Testing a detector on a split, shared by the fit loop and by whoever measures later."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from distillery.models.base import Network
from distillery.study.blocks import Recipe
from distillery.tasks.detection.detections import Detections, Pictures
from distillery.tasks.detection.loader import BoxSplit
from distillery.tasks.detection.predictions import COLUMNS, MOST, found_in
from distillery.training.parallel import ALONE, Ranks
from distillery.training.testing import predictions


class _Sized:
    """A split whose batches are those of the recipe: with padding, who shares a batch matters to the last digits."""

    def __init__(self, split: BoxSplit, size: int) -> None:
        self.split, self.size, self.count = split, size, split.count

    def batches(self, size: int, rank: int = 0, ranks: int = 1) -> Iterator[tuple[Pictures, Tensor]]:
        return self.split.batches(self.size, rank, ranks)


@torch.no_grad()
def detect(network: Network, split: BoxSplit, recipe: Recipe, ranks: Ranks = ALONE) -> Tensor:
    """What a network finds in the images of a split, in their order: (N, 100, 6) on the CPU, pixels of the originals.

    Each process looks at its share of the batches, and all get everything.
    """
    network.eval()
    device = split.loader.device
    everything = torch.zeros(split.count, MOST, COLUMNS, device=device)
    sized = _Sized(split, recipe.batch_size)
    for outputs, facts in predictions(network, sized, recipe, device, ranks):
        assert isinstance(outputs, Detections)
        everything[facts[:, 0]] = found_in(outputs, facts[:, 1:3].float(), facts[:, 3:5].float())
    return ranks.total(everything).cpu()
