"""RC: KD plus a correction from the student's own logits, a baseline of RLD (arXiv:2408.07703)."""

from __future__ import annotations

from torch import Tensor

from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.kd import kd_loss


def corrected(student: Tensor, labels: Tensor) -> Tensor:
    """Return the student's logits, detached, with the row's maximum added to the label entry: (B, C) in and out."""
    target = student.detach()
    column = labels.unsqueeze(1)
    return target.scatter(1, column, target.gather(1, column) + target.amax(dim=1, keepdim=True))


def rc_loss(student: Tensor, labels: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 * mean_B KL(softmax(corrected/T) || softmax(student/T)), (B, C) logits in, scalar out; no teacher."""
    return kd_loss(student, corrected(student, labels), temperature)


class RC(Objective):
    """L = ce_weight * CE + kd_weight * kd_loss + rc_weight * rc_loss.

    Defaults as released (zju-SWJ/RLD): 1, 1, 0.1, T = 4 (ImageNet 1). With `standardise` that code multiplies
    both distillation weights by 9, sets T = 2 and builds the correction from the standardised student.
    """

    def __init__(
        self,
        context: Context,
        *,
        temperature: float = 4.0,
        ce_weight: float = 1.0,
        kd_weight: float = 1.0,
        rc_weight: float = 0.1,
    ) -> None:
        super().__init__(context, ce_weight=ce_weight)
        self.temperature = temperature
        self.kd_weight = kd_weight
        self.rc_weight = rc_weight

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.labels)
        return {
            "kd": self.kd_weight * kd_loss(student, teacher, self.temperature),
            "rc": self.rc_weight * rc_loss(student, batch.labels, self.temperature),
        }
