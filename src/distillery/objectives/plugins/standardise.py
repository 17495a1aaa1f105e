"""LS: "Logit standardization in knowledge distillation" (arXiv:2403.01427), equation 7 and algorithm 1."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from distillery.objectives.base import Transform
from distillery.objectives.soft import full_precision


def standardise(logits: Tensor, unbiased: bool = True, eps: float = 1e-7) -> Tensor:
    """z-score each row: (z - mean) / (std + eps), (B, C) in and out; gradients flow through mean and std.

    A constant row becomes zeros; its gradient is finite but up to 1/eps large, as released. `unbiased` takes the
    divisor C - 1, otherwise C.
    """
    logits = full_precision(logits)
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (logits.std(dim=1, keepdim=True, unbiased=unbiased) + eps)


class Standardise(Transform):
    """Standardise student and teacher logits before the temperature.

    `std: unbiased` (divisor C - 1, plus 1e-7) is what the released code computes and the default, because the published
    numbers were made with it; `std: biased` (divisor C) is what the paper prints. For C = 100 they differ by 0.5 %.
    Of two classes it would leave the sign of their difference only, which has no gradient.
    """

    order = 2
    least_classes = 3
    reads_labels = False

    class Config(Transform.Config):
        std: Literal["unbiased", "biased"] = "unbiased"

    config: Config

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        unbiased = self.config.std == "unbiased"
        return standardise(student, unbiased), standardise(teacher, unbiased)
