"""CAT-KD: Guo et al., "Class attention transfer based knowledge distillation" (arXiv:2304.12777, CVPR 2023).

The class activation maps of both networks, the classifier at every position of the last map, are pooled to a few
positions and compared. As in the authors' code (GzyAftermath/CAT-KD) without the classifier's bias: it rebuilds both
networks with a bias-free 1x1 convolution before the pooling; here they stay as they are, and a student keeps its bias,
which is not in the maps. Its experiments with binarised maps, and with those of some classes, are left out.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillery.config import Count, Weight
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.features import average_pool, unit
from distillery.objectives.soft import full_precision


def attention(cams: Tensor, resolution: int, normalise: bool) -> Tensor:
    """Pool (B, C, H, W) class activation maps to (B, C, r, r); `normalise` divides each map by its Euclidean norm.

    A map of zeros stays zero, with the gradient of the identity; the released code divides by 1e-12 there.
    """
    pooled = average_pool(full_precision(cams), (resolution, resolution))
    return unit(pooled.flatten(0, 1).flatten(1)).view_as(pooled) if normalise else pooled


class CATKD(Objective):
    """L = ce_weight * CE + cat_weight * MSE(attention of the student, of the teacher), over all entries.

    Defaults: those of the authors' code (weight 400, 2 x 2 positions, normalised). What it published for each pair
    differs from them: see the study `ls_rld_cat_kd`. `ce_weight: 0` is the paper's CAT.
    """

    needs = frozenset({"cams"})

    class Config(Objective.Config):
        cat_weight: Weight = 400.0
        """Of the distance of the maps (beta)."""
        resolution: Count = 2
        """Rows and columns that the maps are pooled to."""
        normalise: bool = True
        """Divide each map by its norm, for networks of different families."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        for who, outputs in (("student", context.student), ("teacher", context.teacher)):
            if outputs is None or outputs.cams is None:
                raise Incompatible(
                    f"CAT-KD compares class activation maps, but the {who} gives none: take another one."
                )

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        c, maps = self.config, (batch.student.cams, batch.teacher.cams)
        student, teacher = (attention(m, c.resolution, c.normalise) for m in maps if m is not None)
        return {"cat": c.cat_weight * F.mse_loss(student, teacher)}
