"""RLD: Sun et al., "Knowledge distillation with refined logits" (arXiv:2408.07703, ICCV 2025), equations 6 to 9."""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor

from distillery.config import Epochs, Positive, Weight
from distillery.objectives.base import Batch, Objective, warmup
from distillery.objectives.soft import binary_kl_rows, kl_rows_without, one_against_rest


def sample_confidence(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """SCD: T^2 * mean_B KL((max p_t, 1 - max p_t) || (p_s[y], 1 - p_s[y])), (B, C) logits in, scalar out.

    The teacher speaks through its top class, the student through the label. Finite for any finite logits; the
    released code (zju-SWJ/RLD) takes the logarithm of 1 - p_s[y] and is NaN or infinite once that underflows.
    """
    student_odds, _ = one_against_rest(student, labels, temperature)
    teacher_odds, _ = one_against_rest(teacher, teacher.argmax(dim=1), temperature)
    return temperature**2 * binary_kl_rows(student_odds, teacher_odds).mean()


def correlation_mask(teacher: Tensor, labels: Tensor) -> Tensor:
    """Return the (B, C) mask of the classes that the teacher puts at or above the label, the label included."""
    return teacher >= teacher.gather(1, labels.unsqueeze(1))


def masked_correlation(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 4.0) -> Tensor:
    """MCD: T^2 * mean_B KL over the classes the teacher puts below the label, (B, C) logits in, scalar out.

    A row where the label is the teacher's minimum has no such class and counts zero.
    """
    mask = correlation_mask(teacher, labels)
    return temperature**2 * kl_rows_without(mask, student, teacher, temperature).mean()


class RLD(Objective):
    """L = ce_weight * CE + min(epoch / warmup_epochs, 1) * (alpha * SCD + beta * MCD).

    Where the teacher is right and both temperatures are the same this is DKD. Defaults are those of the released
    configuration (alpha 1, beta 8, T 4, alpha_temperature 1, warm-up 20 epochs); its CIFAR-100 command passes the
    switch `same_temperature`, which uses `temperature` in both terms. With `standardise` the released code multiplies
    both weights by 9 and sets both temperatures to 2.
    """

    class Config(Objective.Config):
        idle = MappingProxyType(
            {
                "temperature": ({"beta": 0, "same_temperature": False},),
                "alpha_temperature": ({"same_temperature": True}, {"alpha": 0}),
                "same_temperature": ({"alpha": 0},),
            }
        )

        temperature: Positive = 4.0
        alpha_temperature: Positive = 1.0
        """Of the sample confidence term."""
        same_temperature: bool = False
        """Use `temperature` in both terms."""
        alpha: Weight = 1.0
        """Of the sample confidence term."""
        beta: Weight = 8.0
        """Of the masked correlation term."""
        warmup_epochs: Epochs = 20.0
        """Over which both terms grow to their weight; 0: none."""

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        c = self.config
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
        confidence_temperature = c.temperature if c.same_temperature else c.alpha_temperature
        scd = sample_confidence(student, teacher, batch.labels, confidence_temperature)
        mcd = masked_correlation(student, teacher, batch.labels, c.temperature)
        factor = warmup(batch.epoch, c.warmup_epochs, mcd.dtype)
        return {"scd": factor * c.alpha * scd, "mcd": factor * c.beta * mcd}
