"""DKD: Zhao et al., "Decoupled knowledge distillation" (arXiv:2203.08679, CVPR 2022), equations 6 to 8."""

from __future__ import annotations

from torch import Tensor

from distillery.config import Epochs, Positive, Weight
from distillery.objectives.base import Batch, Objective, warmup
from distillery.objectives.soft import binary_kl_rows, kl_rows, one_against_rest


def dkd_terms(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float | Tensor = 4.0
) -> tuple[Tensor, Tensor]:
    """Target-class and non-target-class terms (TCKD, NCKD), each T^2 times the batch mean of a KL divergence.

    TCKD compares (p[y], 1 - p[y]); NCKD compares the distributions over the other classes. (B, C) logits and (B,)
    labels in, two scalars out.

    Two departures from the released code (megvii-research/mdistiller), both only visible at extreme logits. It takes
    the logarithm of p[y] and 1 - p[y], which is NaN once one of them underflows; here both come from log-sum-exp and
    stay finite. It removes the label class by subtracting 1000 from its logit, which leaves it in when |logit|/T is
    of that size; here it is left out.
    """
    student_odds, student_rest = one_against_rest(student, labels, temperature)
    teacher_odds, teacher_rest = one_against_rest(teacher, labels, temperature)
    tckd = binary_kl_rows(student_odds, teacher_odds).mean()
    nckd = kl_rows(student_rest, teacher_rest).mean()
    return temperature**2 * tckd, temperature**2 * nckd


class DKD(Objective):
    """L = ce_weight * CE + min(epoch / warmup_epochs, 1) * (alpha * TCKD + beta * NCKD).

    Defaults are the released ones for CIFAR-100: alpha 1, beta 8, T 4, warm-up 20 epochs counted from 1. Per pair beta
    is 2 (resnet56 -> resnet20, resnet110 -> resnet32), 6 (vgg13 -> vgg8, vgg13 -> mobilenet_v2, wrn_40_2 ->
    wrn_16_2, wrn_40_2 -> wrn_40_1) or 8. With the plug-in `standardise` the released code multiplies both weights by
    9 and sets T = 2: alpha 9, beta 72.
    """

    class Config(Objective.Config):
        temperature: Positive = 4.0
        alpha: Weight = 1.0
        """Of the target-class term."""
        beta: Weight = 8.0
        """Of the non-target-class term."""
        warmup_epochs: Epochs = 20.0
        """Over which both terms grow to their weight; 0: none."""

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
        tckd, nckd = dkd_terms(student, teacher, batch.labels, self.config.temperature)
        factor = warmup(batch.epoch, self.config.warmup_epochs, nckd.dtype)
        return {"tckd": factor * self.config.alpha * tckd, "nckd": factor * self.config.beta * nckd}
