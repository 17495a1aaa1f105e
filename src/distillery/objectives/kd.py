"""KD: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network" (arXiv:1503.02531), section 2."""

from __future__ import annotations

from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.soft import kl_rows


def kd_loss(student: Tensor, teacher: Tensor, temperature: float | Tensor = 4.0) -> Tensor:
    """T^2 * mean_B KL(softmax(teacher/T) || softmax(student/T)), (B, C) logits in, scalar out."""
    return temperature**2 * kl_rows(student, teacher, temperature).mean()


class KD(Objective):
    """L = ce_weight * CE + kd_weight * kd_loss.

    Defaults are the CIFAR-100 setting of both benchmark lineages (T = 4, 0.1, 0.9); on ImageNet they use T = 1 and
    0.5, 0.5. With the plug-in `standardise` the logit-standardisation paper (arXiv:2403.01427) uses T = 2,
    ce_weight 0.1, kd_weight 9.
    """

    class Config(Objective.Config):
        temperature: Positive = 4.0
        """Of both softmaxes; the term is multiplied by its square."""
        ce_weight: Weight = 0.1
        kd_weight: Weight = 0.9

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
        return {"kd": self.config.kd_weight * kd_loss(student, teacher, self.config.temperature)}
