"""MLKD: Jin et al., "Multi-level logit distillation" (CVPR 2023), with the two views of its released code."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.soft import full_precision, kl_rows, tempered

Masks = Literal["released", "rows"]

# The temperatures after the first one, which is the method's own; fixed in the released code.
WEAK, STRONG = (3.0, 5.0, 2.0, 6.0), (3.0, 5.0)


def instance_rows(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Instance level: T^2 * KL of each row, (B, C) logits in, (B,) out."""
    return temperature**2 * kl_rows(student, teacher, temperature)


def instance_levels(student: Tensor, teacher: Tensor, temperatures: Tensor) -> Tensor:
    """`instance_rows` at all of the (n,) temperatures, (n, B)."""
    return temperatures[:, None] ** 2 * kl_rows(student, teacher, temperatures[:, None, None])


def correlation_rows(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Batch level and class level, (B, C) logits in, (B,) and (C,) out: squared rows of two differences.

    With (n, 1, 1) temperatures (n, B) and (n, C).

    They are P_t P_t' - P_s P_s' between images and P_t' P_t - P_s' P_s between classes; P = softmax(z/T), no T^2.
    """
    q, p = tempered(student, temperature).softmax(dim=-1), tempered(teacher, temperature).softmax(dim=-1)
    return (p @ p.mT - q @ q.mT).square().sum(dim=-1), (p.mT @ p - q.mT @ q).square().sum(dim=-1)


def median(values: Tensor) -> Tensor:
    """Return the 50th percentile with linear interpolation (numpy's), (n,) in, () out; torch's takes the lower one."""
    ordered, n = values.sort().values, len(values)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def uncertain_rows(teacher: Tensor) -> Tensor:
    """Mask of the images whose top probability is at most the batch's median, (B, C) logits in, (B,) out."""
    confidence = full_precision(teacher).softmax(dim=1).amax(dim=1)
    return confidence <= median(confidence)


def uncertain_classes(teacher: Tensor) -> Tensor:
    """Mask of the classes whose summed probability is at most the median over classes, (B, C) logits in, (C,) out."""
    mass = full_precision(teacher).softmax(dim=1).sum(dim=0)
    return mass <= median(mass)


def masked_mean(rows: Tensor, mask: Tensor, masks: Masks) -> Tensor:
    """Mean of the rows with the mask applied.

    "rows" masks the rows before the mean, as the paper describes; "released" multiplies the finished mean by the
    fraction of selected rows, which is what the released code does (it reduces first).
    """
    if masks == "rows":
        return (rows * mask).mean()
    return rows.mean() * mask.to(rows.dtype).mean()


def weak_terms(student: Tensor, teacher: Tensor, kl: Tensor, temperatures: Tensor, masks: Masks) -> dict[str, Tensor]:
    """Return the three levels on the weak view, summed over the (n,) temperatures, unweighted scalars.

    `student` and `teacher` are the raw (B, C) logits, from which the masks and both correlations come; `kl` are the
    `instance_levels` (n, B), taken after the plug-ins (so logit standardisation leaves the rest alone).
    """
    kept, classes = uncertain_rows(teacher), uncertain_classes(teacher)
    by_batch, by_class = correlation_rows(student, teacher, temperatures[:, None, None])
    return {
        "kd": masked_mean(kl.sum(dim=0), kept, masks),
        "class": masked_mean(by_class.sum(dim=0), classes, masks),
        "batch": masked_mean(by_batch.sum(dim=0), kept, masks),
    }


class Tempered(Objective):
    """Base of those that take the temperatures {T, 3, 5, 2, 6} at once: a fifth of the operations of one by one."""

    config: MLKD.Config
    _temperatures: Tensor

    def __init__(self, context: Context, config: Objective.Config | None = None) -> None:
        super().__init__(context, config)
        five = torch.tensor((self.config.temperature, *WEAK), dtype=torch.float64)
        self.register_buffer("_temperatures", five, persistent=False)

    def temperatures(self, logits: Tensor) -> Tensor:
        """(5,), of the type of the logits."""
        return self._temperatures.to(logits.dtype)


class MLKD(Tempered):
    """L = ce_weight * (CE(weak) + CE(strong)) + kd_weight * (KL weak + KL strong + class level + batch level).

    As released (Jin-Ying/Multi-Level-Logit-Distillation): T runs through {temperature, 3, 5, 2, 6} (with temperature 2
    the 2 counts twice); the "strong" KL takes the strong view at the first three and the weak view at 2 and 6,
    unmasked; both correlations are those of the weak view only. Weights 0.1 and 0.9, T 4; with `standardise` 0.1, 9
    and T 2. `masks: rows` is the paper's per-image (and per-class) mask instead of the released scalar factor.
    """

    needs = frozenset({"logits", "strong"})

    class Config(Objective.Config):
        temperature: Positive = 4.0
        """The first of the five."""
        masks: Masks = "released"
        ce_weight: Weight = 0.1
        kd_weight: Weight = 0.9

    config: Config

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.strong_student is not None
        strong = F.cross_entropy(full_precision(batch.strong_student.logits), batch.labels)
        return {**super().supervised(batch), "ce_strong": self.config.ce_weight * strong}

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.strong_student is not None and batch.strong_teacher is not None
        student, teacher = full_precision(batch.student.logits), full_precision(batch.teacher.logits)
        weak = self.logits(student, teacher, batch.targets)
        strong = self.logits(batch.strong_student.logits, batch.strong_teacher.logits, batch.targets)
        temperatures, first = self.temperatures(student), 1 + len(STRONG)
        kl = instance_levels(*weak, temperatures)
        terms = weak_terms(student, teacher, kl, temperatures, self.config.masks)
        kl_strong = torch.cat([instance_levels(*strong, temperatures[:first]), kl[first:]])
        terms["kd_strong"] = kl_strong.sum(dim=0).mean()
        return {name: self.config.kd_weight * term for name, term in terms.items()}
