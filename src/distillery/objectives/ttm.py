"""TTM: Zheng and Yang, "Knowledge distillation based on transformed teacher matching" (arXiv:2402.11148, ICLR 2024)."""

from __future__ import annotations

from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.soft import full_precision, kl_rows


def transformed_rows(student: Tensor, teacher: Tensor, gamma: float) -> Tensor:
    """KL(p^gamma / U || q) of each row: the teacher's power transform against the untempered student.

    (B, C) logits in, (B,) out; no T^2 factor. p^gamma / U is softmax(gamma * z_t) and is computed as that, so a
    probability that underflows keeps its share where the released code (zkxufo/TTM) drops it.
    """
    return kl_rows(student, full_precision(teacher) * gamma)


def power_sum(teacher: Tensor, gamma: float) -> Tensor:
    """U = sum_c p[c]^gamma of each row, (B, C) logits in, (B,) out: 1 if one-hot, C^(1-gamma) if uniform."""
    return (F.log_softmax(full_precision(teacher), dim=1) * gamma).logsumexp(dim=1).exp()


def ttm_loss(student: Tensor, teacher: Tensor, gamma: float = 0.1) -> Tensor:
    """mean_B KL(p^gamma / U || q), (B, C) logits in, scalar out (equation 7)."""
    return transformed_rows(student, teacher, gamma).mean()


class TTM(Objective):
    """L = ce_weight * CE + beta * ttm_loss; gamma is 1/T of the teacher, the student is not tempered.

    Tuned per pair in the paper's appendix; the defaults are its values for resnet32x4 -> resnet8x4. beta =
    lambda * T / (1 - lambda) has the same share of cross-entropy as KD at (lambda, T): 36 for 0.9 and 4.
    """

    refuses = MappingProxyType(
        {"standardise": "the student is not tempered here, so no student with deviation 1 could reach the teacher"}
    )

    class Config(Objective.Config):
        gamma: Positive = 0.1
        """Power of the teacher's probabilities: 1 / T."""
        beta: Weight = 100.0
        """Of the distillation term."""

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
        return {"ttm": self.config.beta * ttm_loss(student, teacher, self.config.gamma)}
