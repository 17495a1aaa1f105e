"""Swap: KD from the teacher with its top entry and its label entry exchanged, a baseline of RLD (arXiv:2408.07703)."""

from __future__ import annotations

from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.kd import kd_loss
from distillery.objectives.plugins.swap import swap_top_and_label


class SwapKD(Objective):
    """L = kd_weight * kd_loss(student, swapped teacher) and, as released (zju-SWJ/RLD), no cross-entropy.

    T = 4 on CIFAR-100, 1 on ImageNet. The swap comes before the plug-ins, so `standardise` sees the swapped logits.
    """

    class Config(Objective.Config):
        temperature: Positive = 4.0
        ce_weight: Weight = 0.0
        kd_weight: Weight = 1.0

    config: Config

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        swapped = swap_top_and_label(batch.teacher.logits, batch.labels)
        student, teacher = self.logits(batch.student.logits, swapped, batch.labels)
        return {"kd": self.config.kd_weight * kd_loss(student, teacher, self.config.temperature)}
