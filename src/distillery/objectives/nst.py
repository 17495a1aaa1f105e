"""NST: Huang, Wang, "Like what you like: knowledge distill via neuron selectivity transfer" (arXiv:1707.01219), eq. 6.

Squared maximum mean discrepancy between the channels of student and teacher under the kernel (x'y)^2, as released in
mdistiller (the constant teacher-teacher part is included).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import align, stage_taps, stages


def nst_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the batch of the squared MMD of one stage, scalar.

    student: (B, C_s, H_s, W_s), teacher: (B, C_t, H_t, W_t); the larger map is pooled. The kernel sums are
    <A'A, B'B>, so there are two ways to the same number: Gram matrices of positions or of channels. The smaller is
    taken; the positions' way gives the discrepancy as one squared norm.
    """
    s, t = (F.normalize(x.flatten(2), dim=2) for x in align(student, teacher))
    if s.shape[2] <= min(s.shape[1], t.shape[1]):
        gap = torch.bmm(t.transpose(1, 2), t) / t.shape[1] - torch.bmm(s.transpose(1, 2), s) / s.shape[1]
        return gap.square().sum(dim=(1, 2)).mean()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.bmm(a, b.transpose(1, 2)).square().mean()

    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


class NST(Objective):
    """L = ce_weight * CE + feat_weight * sum over stages of nst_loss. Default weight: mdistiller and RepDistiller."""

    needs = frozenset({"maps"})

    class Config(Objective.Config):
        feat_weight: Weight = 50.0

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        stage_taps(context, "NST")

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        return {"nst": self.config.feat_weight * torch.stack([nst_loss(s, t) for s, t in stages(batch)]).sum()}
