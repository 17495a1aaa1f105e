"""Drawing contrast images for CRD on the device, without host synchronisation and with static shapes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillery.objectives.base import Incompatible


class ClassSampler(nn.Module):
    """Draws, for each image of a batch, images of other classes without replacement, or one of its own class.

    All draws use the default generator of the device the labels are on.
    """

    labels: Tensor
    by_class: Tensor
    first: Tensor
    counts: Tensor

    def __init__(self, labels: Tensor, count: int) -> None:
        """Take the (N,) training labels and the number of negatives; that is cut to what every class can offer.

        Raises Incompatible if all images are of one class.
        """
        super().__init__()
        counts = labels.bincount()
        most = int(counts.max())
        if most == len(labels):
            raise Incompatible("CRD contrasts images of different classes, but all training labels are the same.")
        self.count = min(count, len(labels) - most)
        self.window = min(len(labels), self.count + most)
        # All of this follows from the labels, so it is not part of a checkpoint.
        self.register_buffer("labels", labels.clone(), persistent=False)
        self.register_buffer("by_class", labels.argsort(stable=True), persistent=False)
        self.register_buffer("first", counts.cumsum(0) - counts, persistent=False)
        self.register_buffer("counts", counts, persistent=False)

    def negatives(self, labels: Tensor) -> Tensor:
        """(B,) labels -> (B, count) distinct training positions of other classes, uniform for each row.

        One random permutation serves the batch: each row starts at its own random place, skips its own class and takes
        the first `count`. A row by itself is exactly a uniform draw without replacement; rows of one batch depend on
        each other where their stretches of the permutation overlap.
        """
        total, device = len(self.labels), self.labels.device
        shuffled = torch.rand(total, dtype=torch.float64, device=device).argsort().repeat(2)
        start = torch.randint(total, (len(labels), 1), device=device)
        candidates = shuffled[start + torch.arange(self.window, device=device)]
        other = self.labels[candidates] != labels[:, None]
        rank = other.cumsum(1) - 1
        slot = torch.where(other & (rank < self.count), rank, self.count)  # the last slot takes what is not wanted
        drawn = candidates.new_zeros(len(labels), self.count + 1).scatter_(1, slot, candidates)
        return drawn[:, :-1]

    def positives(self, labels: Tensor) -> Tensor:
        """(B,) labels -> (B,) training positions, each uniform among the images of that class."""
        place = torch.rand(len(labels), dtype=torch.float64, device=self.labels.device) * self.counts[labels]
        return self.by_class[self.first[labels] + place.long()]
