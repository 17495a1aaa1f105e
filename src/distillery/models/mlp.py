"""Multilayer perceptrons for rows of features, which are images of one pixel (`distillery.data.rows`)."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.models.base import Network, Outputs


class MLP(Network):
    """`depth` hidden layers of `width` with ReLU, then `fc`; without hidden layers multinomial logistic regression.

    torch's default initialisation. The pooled feature is the last hidden layer's, or the row itself without one.
    """

    def __init__(self, width: int, depth: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        sizes = [in_channels, *[width] * depth]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
        self.hidden = nn.Sequential(*layers)
        self.fc = nn.Linear(sizes[-1], num_classes)

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, F, 1, 1) rows to `Outputs` without maps. Raises DistilleryError for images of more pixels."""
        if images.shape[2:] != (1, 1):
            raise DistilleryError(
                f"it takes rows of features, not images of {images.shape[2]}x{images.shape[3]}: take another"
            )
        pooled = self.hidden(images.flatten(1))
        return Outputs(self.fc(pooled), pooled)

    @property
    def head(self) -> nn.Linear:
        """The last layer, `fc`."""
        return self.fc
