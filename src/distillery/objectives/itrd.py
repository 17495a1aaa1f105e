"""ITRD: Miles et al., "Information theoretic representation distillation" (arXiv:2112.00459, BMVC 2022), eq. 6 and 9.

As released in the TTM code. Standardisation is over the batch without epsilon; where the released code divides zero by
zero (constant channel, batch of one, all features zero) the correlation counts as 0 and the Gram matrix as 0.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import pooled, pooled_widths, standardise
from distillery.objectives.soft import full_precision


def correlation_loss(student: Tensor, teacher: Tensor, alpha: float = 1.01) -> Tensor:
    """log2 of sum_j |c_j - 1|^(2 alpha), c_j the batch correlation of channel j, scalar.

    student, teacher: (B, d_t), the student's embedded. The sum never is 0: with the unbiased deviation c_j stays below
    (B - 1) / B.
    """
    s, t = standardise(full_precision(student)), standardise(full_precision(teacher))
    correlation = (s * t).sum(dim=0) / len(s)
    return (correlation - 1).abs().square().pow(alpha).sum().log2()


def mutual_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Rényi mutual information (order 2, up to sign) of the normalised Gram matrices, scalar.

    student, teacher: (B, d) of one width; rows are L2-normalised first.
    """
    s, t = F.normalize(full_precision(student), dim=1), F.normalize(full_precision(teacher), dim=1)
    gram = s @ s.T
    joint = gram * (t @ t.T)
    return _unit_trace(gram).square().sum() - _unit_trace(joint).square().sum()


def _unit_trace(gram: Tensor) -> Tensor:
    trace = gram.diagonal().sum()  # the gradient of trace() asks the host
    return gram / torch.where(trace > 0, trace, 1.0)


class ITRD(Objective):
    """L = ce_weight * CE + lambda_corr * correlation_loss + lambda_mutual * mutual_loss on the pooled features.

    alpha is 1.01 for pairs of one family and 1.5 for others; lambda_mutual 1 (TTM and the README of ITRD; ITRD's
    argument default is 0.05), and 0 for resnet50 -> mobilenet_v2, resnet50 -> vgg8 and wrn_40_2 -> shufflenet_v1.
    The student is embedded for the correlation always, for the mutual information only if the widths differ.
    """

    needs = frozenset({"pooled"})

    class Config(Objective.Config):
        idle = MappingProxyType({"alpha": ({"lambda_corr": 0},)})

        alpha: Positive = 1.01
        """Of the correlation term; 1.5 for pairs of two families."""
        lambda_corr: Weight = 2.0
        lambda_mutual: Weight = 1.0

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        student, teacher = pooled_widths(context, "ITRD")
        self.embed = nn.Linear(student, teacher)

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = pooled(batch)
        embedded = self.embed(student)
        terms = {"correlation": self.config.lambda_corr * correlation_loss(embedded, teacher, self.config.alpha)}
        if self.config.lambda_mutual:
            same = student.shape[1] == teacher.shape[1]
            terms["mutual"] = self.config.lambda_mutual * mutual_loss(student if same else embedded, teacher)
        return terms
