"""DIST: Huang et al., "Knowledge distillation from a stronger teacher" (arXiv:2205.10536, NeurIPS 2022), section 3."""

from __future__ import annotations

from torch import Tensor

from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.soft import correlation, tempered


def dist_terms(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> tuple[Tensor, Tensor]:
    """Inter-class and intra-class terms: T^2 * (1 - mean Pearson correlation) over rows and over columns.

    (B, C) logits in, compared as softmax(z/T); two scalars out. A constant row or column correlates 0 with anything;
    its gradient is finite but up to 1e8 times larger than usual, as released (the eps of 1e-8).
    """
    q, p = tempered(student, temperature).softmax(dim=1), tempered(teacher, temperature).softmax(dim=1)
    inter, intra = (1 - correlation(q, p, dim=dim).mean() for dim in (1, 0))
    return temperature**2 * inter, temperature**2 * intra


class DIST(Objective):
    """L = ce_weight * CE + kd_weight * (beta * inter + gamma * intra).

    Defaults are those of the official CIFAR-100 configuration: weight 2, beta = gamma = 1, T = 4 (ImageNet: T = 1).
    """

    def __init__(
        self,
        context: Context,
        *,
        temperature: float = 4.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        ce_weight: float = 1.0,
        kd_weight: float = 2.0,
    ) -> None:
        super().__init__(context, ce_weight=ce_weight)
        self.temperature = temperature
        self.inter_weight = kd_weight * beta
        self.intra_weight = kd_weight * gamma

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.labels)
        inter, intra = dist_terms(student, teacher, self.temperature)
        return {"inter": self.inter_weight * inter, "intra": self.intra_weight * intra}
