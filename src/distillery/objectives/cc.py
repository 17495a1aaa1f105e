"""CC: Peng et al., "Correlation congruence for knowledge distillation" (arXiv:1904.01802, ICCV 2019), as released.

RepDistiller's `Correlation` replaces the paper's kernel matrices by products of neighbouring rows, and puts plain
linear embeddings in front of it (no normalisation; `normalise` adds it).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import pooled, pooled_widths
from distillery.objectives.soft import full_precision


def cc_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over i of <|s_i - t_i|, |s_(i+1) - t_(i+1)|>, scalar; 0 for a batch of one (NaN in the released code).

    student, teacher: (B, d) embedded features.
    """
    gap = (full_precision(student) - full_precision(teacher)).abs()
    return (gap[:-1] * gap[1:]).sum() / max(len(gap) - 1, 1)


class CC(Objective):
    """L = ce_weight * CE + feat_weight * cc_loss of linear embeddings of the pooled features.

    Both embeddings are trained. Defaults: width 128 and weight 0.02, RepDistiller.
    """

    needs = frozenset({"pooled"})

    def __init__(
        self,
        context: Context,
        *,
        ce_weight: float = 1.0,
        feat_weight: float = 0.02,
        feat_dim: int = 128,
        normalise: bool = False,
    ) -> None:
        super().__init__(context, ce_weight=ce_weight)
        student, teacher = pooled_widths(context, "CC")
        self.embed_student = nn.Linear(student, feat_dim)
        self.embed_teacher = nn.Linear(teacher, feat_dim)
        self.feat_weight = feat_weight
        self.normalise = normalise

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = pooled(batch)
        s, t = self.embed_student(student), self.embed_teacher(teacher)
        if self.normalise:
            s, t = F.normalize(s, dim=1), F.normalize(t, dim=1)
        return {"cc": self.feat_weight * cc_loss(s, t)}
