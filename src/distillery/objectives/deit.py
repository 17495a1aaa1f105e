"""DeiT: Touvron et al., "Training data-efficient image transformers and distillation" (arXiv:2012.12877, ICML 2021).

The student has a second token and head, which learn from the teacher while the class head learns from the labels; the
mean of both heads predicts (`Outputs.logits` in evaluation).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.kd import kd_loss


class DeiT(Objective):
    """L = ce_weight * CE of the class head + kd_weight * distillation of the distillation head.

    hard (equation 3, the default): cross-entropy with the teacher's own prediction. soft (equation 2): KD at
    `temperature`, for which the paper has 3 and ce_weight 0.9, kd_weight 0.1. The released soft term is a mean over the
    B * C entries and not over images: `mean: entries`.

    With `kind: soft`, the plug-in `standardise`, temperature 2 and kd_weight 10 it is the loss of the
    logit-standardisation paper (arXiv:2403.01427) on DeiT-Ti; on students without a distillation head its loss is
    objective `kd` with ce_weight 0.5.
    """

    needs = frozenset({"logits", "distilled"})

    class Config(Objective.Config):
        idle = MappingProxyType({"temperature": ({"kind": "hard"},), "mean": ({"kind": "hard"},)})

        kind: Literal["hard", "soft"] = "hard"
        """What the distillation head learns: the teacher's arg-max, or its distribution."""
        ce_weight: Weight = 0.5
        kd_weight: Weight = 0.5
        temperature: Positive = 3.0
        """Of both softmaxes if soft; the term is multiplied by its square."""
        mean: Literal["images", "entries"] = "images"
        """What the soft term is a mean over; entries: B * C of them, as the released code divides."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        if context.student.distilled is None:
            raise Incompatible("deit trains a distillation head, and the student has none: take kd for it.")

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.student.distilled is not None  # the constructor has looked
        student, teacher = self.logits(batch.student.distilled, batch.teacher.logits, batch.targets)
        if self.config.kind == "hard":
            loss = F.cross_entropy(student, teacher.argmax(1))
        else:
            loss = kd_loss(student, teacher, self.config.temperature)
            loss = loss / student.shape[1] if self.config.mean == "entries" else loss
        return {"kd": self.config.kd_weight * loss}
