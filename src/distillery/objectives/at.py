"""AT: Zagoruyko, Komodakis, "Paying more attention to attention" (arXiv:1612.03928, ICLR 2017), equation 2.

As released in mdistiller: activation-based maps with mean over channels, mean squared difference, every stage but the
stem, larger maps pooled to the smaller size. WRN taps are taken before the activation, so they hold negative values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Count, Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import align, stage_taps, stages


def attention(features: Tensor, p: int = 2) -> Tensor:
    """L2-normalised channel mean of features^p: (B, C, H, W) -> (B, H * W). Zero for a zero sample."""
    energy = features.pow(p).mean(dim=1).flatten(1)
    # Normalisation ignores the scale, so take it out first: the square of a fourth power overflows float32.
    peak = energy.detach().abs().amax(dim=1, keepdim=True)
    return F.normalize(energy / torch.where(peak > 1, peak, 1.0), dim=1)


def at_loss(student: Tensor, teacher: Tensor, p: int = 2) -> Tensor:
    """Mean over B * H * W of the squared difference of one stage's attention maps, scalar.

    student: (B, C_s, H_s, W_s), teacher: (B, C_t, H_t, W_t). With p = 1 a zero student sample has a finite but very
    large gradient (factor 1e12), as in the released code.
    """
    s, t = align(student, teacher)
    return (attention(s, p) - attention(t, p)).square().mean()


class AT(Objective):
    """L = ce_weight * CE + feat_weight * sum over stages of at_loss. Defaults: mdistiller and RepDistiller."""

    needs = frozenset({"maps"})

    class Config(Objective.Config):
        feat_weight: Weight = 1000.0
        p: Count = 2
        """Power that turns activations into energies."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        stage_taps(context, "AT")

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        losses = [at_loss(s, t, self.config.p) for s, t in stages(batch)]
        return {"at": self.config.feat_weight * torch.stack(losses).sum()}
