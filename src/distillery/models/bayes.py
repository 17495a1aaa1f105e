"""Bayes' rule of the source `gaussian` as a network: a teacher that is a formula, which nobody trains."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distillery.models.base import Network, Outputs

_FREQUENCY = 3.0  # standard deviation of the noise's frequencies: it changes within a fraction of a deviation of x


class Bayes(Network):
    """logits = sharpness * log p*(c | x) + noise * sqrt(2) * sin(w_c . x + b_c).

    With sharpness 1 and no noise its softmax is p* itself. Sharpened, it ranks the classes alike and is as accurate,
    but too sure. The noise is a function of x, as a teacher's error is: of deviation `noise` over rows, zero on
    average; w and b are drawn once, the same everywhere.

    `weight` is 0 until `know` says what p* is.
    """

    weight: nn.Parameter
    frequency: nn.Parameter
    phase: nn.Parameter

    def __init__(self, sharpness: float, noise: float, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.sharpness, self.noise = sharpness, noise
        generator = torch.Generator().manual_seed(0)
        frequency = _FREQUENCY * torch.randn(num_classes, in_channels, generator=generator)
        phase = 2 * math.pi * torch.rand(num_classes, generator=generator)
        for name, values in (
            ("weight", torch.zeros(num_classes, in_channels)),
            ("frequency", frequency),
            ("phase", phase),
        ):
            self.register_parameter(name, nn.Parameter(values, requires_grad=False))

    def know(self, weight: Tensor) -> None:
        """Take over the (C, F) weight of log p*."""
        with torch.no_grad():
            self.weight.copy_(weight)

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, F, 1, 1) rows to logits."""
        rows = images.flatten(1)
        logits = self.sharpness * rows @ self.weight.T
        if self.noise:
            logits = logits + self.noise * math.sqrt(2) * torch.sin(rows @ self.frequency.T + self.phase)
        return Outputs(logits, rows)
