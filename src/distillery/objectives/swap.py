"""Swap: KD from the teacher with its top entry and its label entry exchanged, a baseline of RLD (arXiv:2408.07703)."""

from __future__ import annotations

from torch import Tensor

from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.kd import kd_loss
from distillery.objectives.plugins.swap import swap_top_and_label


class SwapKD(Objective):
    """L = kd_weight * kd_loss(student, swapped teacher) and, as released (zju-SWJ/RLD), no cross-entropy.

    T = 4 on CIFAR-100, 1 on ImageNet. The swap comes before the plug-ins, so `standardise` sees the swapped logits.
    """

    def __init__(
        self, context: Context, *, temperature: float = 4.0, ce_weight: float = 0.0, kd_weight: float = 1.0
    ) -> None:
        super().__init__(context, ce_weight=ce_weight)
        self.temperature = temperature
        self.kd_weight = kd_weight

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        swapped = swap_top_and_label(batch.teacher.logits, batch.labels)
        student, teacher = self.logits(batch.student.logits, swapped, batch.labels)
        return {"kd": self.kd_weight * kd_loss(student, teacher, self.temperature)}
