"""CLKD: Zhang et al., "Class-aware logit knowledge distillation" (arXiv:2211.14773)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.soft import full_precision

Form = Literal["covariance", "sample_gram", "normalised_gram"]


def normalised_mse(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Mean squared difference of the logits after L2 normalisation along `dim` (1: per image, 0: per class).

    (B, C) logits in, scalar out. A zero vector stays zero; its gradient is finite (norms are floored at 1e-7).
    """
    return F.mse_loss(F.normalize(student, dim=dim, eps=1e-7), F.normalize(teacher, dim=dim, eps=1e-7))


def correlation_gap(student: Tensor, teacher: Tensor, form: Form = "covariance") -> Tensor:
    """Distance of the correlations of (B, C) logits in one of its three public readings, scalar.

    With X the logits less their batch mean: covariance, ||X_s' X_s - X_t' X_t|| / (C - 1) / C^2, classes against
    classes; sample_gram, (||X_s X_s' - X_t X_t'|| / (C - 1))^2 / C^2, images against images, squared; normalised_gram,
    the mean squared difference of Z_s' Z_s and Z_t' Z_t (not centred) with rows of length 1, / C^2.
    """
    classes = student.shape[1]
    if form == "normalised_gram":
        return normalised_mse(student.T @ student, teacher.T @ teacher, dim=1) / classes**2
    s, t = (z - z.mean(dim=0, keepdim=True) for z in (student, teacher))
    if form == "sample_gram":
        return (s @ s.T / (classes - 1) - t @ t.T / (classes - 1)).square().sum() / classes**2
    gap = s.T @ s / (classes - 1) - t.T @ t / (classes - 1)
    return torch.linalg.vector_norm(gap) / classes**2  # whose gradient at zero is zero


def clkd_terms(student: Tensor, teacher: Tensor, form: Form = "covariance") -> dict[str, Tensor]:
    """Instance, class and correlation term, unweighted scalars."""
    student, teacher = full_precision(student), full_precision(teacher)
    correlation = correlation_gap(student, teacher, form)
    return {
        "instance": normalised_mse(student, teacher, dim=1),
        "class": normalised_mse(student, teacher, dim=0),
        "correlation": correlation,
    }


class CLKD(Objective):
    """L = ce_weight * CE + kd_weight * (instance + class_weight * class) + correlation_weight * correlation.

    No official code is public. The weights (0.1, 0.5, 2, 0.4) and the divisor C - 1 come from two re-implementations
    and are unverified. Three readings of the correlation are public (see `correlation_gap`): `sample_gram` is that of
    HyunJunSik/Malware-KD, `covariance` of a later version of it, `normalised_gram` of an mdistiller fork, which states
    no weights. The first grows with the fourth power of the logits: on digits it outweighed all other terms and nothing
    was learnt. Only the last does not depend on their scale.
    """

    class Config(Objective.Config):
        idle = MappingProxyType({"form": ({"correlation_weight": 0},), "class_weight": ({"kd_weight": 0},)})

        ce_weight: Weight = 0.1
        kd_weight: Weight = 0.5
        """Of the instance and the class term."""
        class_weight: Weight = 2.0
        """Of the class term, times kd_weight."""
        correlation_weight: Weight = 0.4
        form: Form = "covariance"
        """Which public reading the correlation term follows (see `correlation_gap`)."""

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        c, pair = self.config, self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
        weights = {"instance": c.kd_weight, "class": c.kd_weight * c.class_weight, "correlation": c.correlation_weight}
        return {name: weights[name] * term for name, term in clkd_terms(*pair, c.form).items()}
