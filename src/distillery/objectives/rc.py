"""RC: KD plus a correction from the student's own logits, a baseline of RLD (arXiv:2408.07703)."""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.kd import kd_loss
from distillery.objectives.soft import one_hot


def corrected(student: Tensor, labels: Tensor) -> Tensor:
    """Return the student's logits, detached, with the row's maximum added to the label entry: (B, C) in and out."""
    target = student.detach()
    return torch.where(one_hot(labels, target), target + target.amax(dim=1, keepdim=True), target)


def rc_loss(student: Tensor, labels: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 * mean_B KL(softmax(corrected/T) || softmax(student/T)), (B, C) logits in, scalar out; no teacher."""
    return kd_loss(student, corrected(student, labels), temperature)


class RC(Objective):
    """L = ce_weight * CE + kd_weight * kd_loss + rc_weight * rc_loss.

    Defaults as released (zju-SWJ/RLD): 1, 1, 0.1, T = 4 (ImageNet 1). With `standardise` that code multiplies
    both distillation weights by 9, sets T = 2 and builds the correction from the standardised student.
    """

    class Config(Objective.Config):
        temperature: Positive = 4.0
        kd_weight: Weight = 1.0
        rc_weight: Weight = 0.1

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
        return {
            "kd": self.config.kd_weight * kd_loss(student, teacher, self.config.temperature),
            "rc": self.config.rc_weight * rc_loss(student, batch.labels, self.config.temperature),
        }
