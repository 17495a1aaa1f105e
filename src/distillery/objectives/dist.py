"""DIST: Huang et al., "Knowledge distillation from a stronger teacher" (arXiv:2205.10536, NeurIPS 2022), section 3."""

from __future__ import annotations

from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Objective
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

    class Config(Objective.Config):
        temperature: Positive = 4.0
        beta: Weight = 1.0
        """Of the inter-class term (rows), times kd_weight."""
        gamma: Weight = 1.0
        """Of the intra-class term (columns), times kd_weight."""
        kd_weight: Weight = 2.0

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
        c = self.config
        inter, intra = dist_terms(student, teacher, c.temperature)
        return {"inter": c.kd_weight * c.beta * inter, "intra": c.kd_weight * c.gamma * intra}
