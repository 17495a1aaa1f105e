"""SGD as in both benchmark lineages (mdistiller, RepDistiller): no dampening."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distillery.config import Fraction
from distillery.recipe.base import Optimizer, light

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class SGD(Optimizer):
    """torch.optim.SGD. Its keys may stand in the recipe itself, without a block."""

    class Config(Optimizer.Config):
        momentum: Fraction = 0.9
        """Of the moving sum of gradients."""
        nesterov: bool = False
        """Look ahead along the momentum."""

    config: Config

    def build(self, groups: list[dict[str, Any]], lr: float | Tensor) -> torch.optim.Optimizer:
        import torch

        kind, config = light(torch.optim.SGD), self.config
        return kind(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.config.nesterov and self.config.momentum == 0:
            yield "nesterov", "needs a momentum"
