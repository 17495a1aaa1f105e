"""Adam (Kingma and Ba, ICLR 2015); weight decay is added to the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distillery.config import Fraction, Positive
from distillery.recipe.base import Optimizer, light

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Adam(Optimizer):
    """torch.optim.Adam."""

    class Config(Optimizer.Config):
        betas: tuple[Fraction, Fraction] = (0.9, 0.999)
        """Of the moving means of gradients and of their squares."""
        eps: Positive = 1e-8
        """Added to the root of the second."""

    config: Config
    kind = "Adam"

    def build(self, groups: list[dict[str, Any]], lr: float | Tensor) -> torch.optim.Optimizer:
        import torch

        kind: type[torch.optim.Adam] = light(getattr(torch.optim, self.kind))
        on_device = isinstance(lr, torch.Tensor)
        return kind(groups, lr=lr, betas=self.config.betas, eps=self.config.eps, fused=True, capturable=on_device)
