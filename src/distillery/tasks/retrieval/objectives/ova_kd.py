"""KD (arXiv:1503.02531) of each label for itself: the teacher's probability of it in place of the label."""

from __future__ import annotations

from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch
from distillery.objectives.soft import full_precision
from distillery.tasks.retrieval.objectives.base import RetrievalObjective, one_versus_all


def ova_kd_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * one-versus-all loss of student / T with sigmoid(teacher / T), (B, L) each: KL and a constant."""
    wanted = (full_precision(teacher) / temperature).sigmoid()
    return temperature**2 * one_versus_all(full_precision(student) / temperature, wanted, 1 - wanted)


class OVAKD(RetrievalObjective):
    """L = ce_weight * one-versus-all with labels + kd_weight * ova_kd_loss."""

    class Config(RetrievalObjective.Config):
        ce_weight: Weight = 0.5
        """Of the one-versus-all loss with the labels."""
        kd_weight: Weight = 0.5
        """Of the distillation term."""
        temperature: Positive = 1.0
        """Divides both networks' scores; the term is multiplied by its square."""

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        loss = ova_kd_loss(batch.student.logits, batch.teacher.logits, self.config.temperature)
        return {"kd": self.config.kd_weight * loss}
