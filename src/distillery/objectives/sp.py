"""SP: Tung, Mori, "Similarity-preserving knowledge distillation" (arXiv:1907.09682, ICCV 2019), equations 1 to 4."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillery.config import Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import stage_taps
from distillery.objectives.soft import full_precision


def _similarity(features: Tensor) -> Tensor:
    """Gram matrix (B, B) of the flattened samples, rows L2-normalised."""
    flat = full_precision(features).flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared Frobenius distance of the row-normalised Gram matrices over B^2, scalar.

    student, teacher: (B, ...) features of any shapes. A zero sample of the student gives a finite but very large
    gradient where the teacher's is not zero, as in the released code (normalisation clamped at 1e-12).
    """
    return (_similarity(student) - _similarity(teacher)).square().mean()


class SP(Objective):
    """L = ce_weight * CE + feat_weight * sp_loss on the last feature maps. Defaults: mdistiller and RepDistiller."""

    needs = frozenset({"maps"})

    class Config(Objective.Config):
        feat_weight: Weight = 3000.0

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        stage_taps(context, "SP")

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        return {"sp": self.config.feat_weight * sp_loss(batch.student.maps[-1], batch.teacher.maps[-1])}
