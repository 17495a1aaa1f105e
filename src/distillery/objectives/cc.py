"""CC: Peng et al., "Correlation congruence for knowledge distillation" (arXiv:1904.01802, ICCV 2019), as released.

RepDistiller's `Correlation` replaces the paper's kernel matrices by products of neighbouring rows, and puts plain
linear embeddings in front of it (no normalisation; `normalise` adds it).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Count, Weight
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

    class Config(Objective.Config):
        feat_weight: Weight = 0.02
        feat_dim: Count = 128
        """Width of the embeddings."""
        normalise: bool = False
        """Whether the embeddings are L2-normalised; not in the released code."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        student, teacher = pooled_widths(context, "CC")
        self.embed_student = nn.Linear(student, self.config.feat_dim)
        self.embed_teacher = nn.Linear(teacher, self.config.feat_dim)

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = pooled(batch)
        s, t = self.embed_student(student), self.embed_teacher(teacher)
        if self.config.normalise:
            s, t = F.normalize(s, dim=1), F.normalize(t, dim=1)
        return {"cc": self.config.feat_weight * cc_loss(s, t)}
