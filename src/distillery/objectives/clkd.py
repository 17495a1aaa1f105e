"""CLKD: Zhang et al., "Class-aware logit knowledge distillation" (arXiv:2211.14773)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.soft import full_precision


def normalised_mse(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Mean squared difference of the logits after L2 normalisation along `dim` (1: per image, 0: per class).

    (B, C) logits in, scalar out. A zero vector stays zero; its gradient is finite (norms are floored at 1e-7).
    """
    return F.mse_loss(F.normalize(student, dim=dim, eps=1e-7), F.normalize(teacher, dim=dim, eps=1e-7))


def class_correlation(logits: Tensor) -> Tensor:
    """Sum over the batch of outer products of the batch-centred logits over C - 1, (B, C) in, (C, C) out."""
    centred = logits - logits.mean(dim=0, keepdim=True)
    return centred.T @ centred / (logits.shape[1] - 1)


def clkd_terms(student: Tensor, teacher: Tensor, squared: bool = False) -> dict[str, Tensor]:
    """Instance, class and correlation term (Frobenius distance / C^2, squared or not), unweighted scalars."""
    student, teacher = full_precision(student), full_precision(teacher)
    gap = class_correlation(student) - class_correlation(teacher)
    distance = gap.square().sum() if squared else torch.linalg.vector_norm(gap)  # whose gradient at zero is zero
    return {
        "instance": normalised_mse(student, teacher, dim=1),
        "class": normalised_mse(student, teacher, dim=0),
        "correlation": distance / gap.numel(),
    }


class CLKD(Objective):
    """L = ce_weight * CE + kd_weight * (instance + class_weight * class) + correlation_weight * correlation.

    No official code is public. The weights (0.1, 0.5, 2, 0.4) and the divisor C - 1 come from two re-implementations
    and are unverified. These disagree on the correlation; the default is the plain distance of the C x C matrices. With
    `squared` the term grows with the fourth power of the logits: on digits it outweighed all others and nothing was
    learnt.
    """

    class Config(Objective.Config):
        ce_weight: Weight = 0.1
        kd_weight: Weight = 0.5
        """Of the instance and the class term."""
        class_weight: Weight = 2.0
        """Of the class term, times kd_weight."""
        correlation_weight: Weight = 0.4
        squared: bool = False
        """Whether the correlation term is the square of the distance."""

    config: Config

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        c, pair = self.config, self.logits(batch.student.logits, batch.teacher.logits, batch.labels)
        weights = {"instance": c.kd_weight, "class": c.kd_weight * c.class_weight, "correlation": c.correlation_weight}
        return {name: weights[name] * term for name, term in clkd_terms(*pair, c.squared).items()}
