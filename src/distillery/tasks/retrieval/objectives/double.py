"""Double distillation: Menon et al., "A statistical perspective on distillation" (arXiv:2005.10419, ICML 2021).

The idea is public: one objective that distils the teacher's probabilities and mines negatives by the teacher's ranking,
for retrieval among many labels. The formula is not: what is here is our reading of it, a declared design, for sets of
labels instead of one, and no number is comparable with the paper's.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from distillery.config import Count, Positive, Weight
from distillery.objectives.base import Batch
from distillery.objectives.soft import full_precision
from distillery.tasks.retrieval.objectives.base import RetrievalObjective, one_versus_all


def mined(teacher: Tensor, targets: Tensor, count: int) -> Tensor:
    """(B, L) flags of the `count` labels that each row does not have and the teacher ranks highest."""
    wrong = teacher.masked_fill(targets > 0, float("-inf"))
    best = wrong.topk(min(count, teacher.shape[1]), dim=1).indices
    return torch.zeros_like(teacher).scatter(1, best, 1.0) * (targets <= 0)


def double_loss(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    negatives: int = 50,
    temperature: float = 1.0,
    positives: Literal["teacher", "labels"] = "teacher",
) -> Tensor:
    """Mean over rows of sum_{l in Y or N} p_l * -log sigmoid(s_l) + sum_{l in N} (1 - p_l) * -log sigmoid(-s_l).

    Args:
        student, teacher: (B, L) scores; targets: (B, L) flags of each row's labels Y.
        negatives: N are so many labels that the row does not have, those which the teacher ranks highest.
        positives: p_l is the teacher's sigmoid(t_l / temperature), or 1 for labels in Y and 0 in N: then only the
            negatives are the teacher's choice.

    Labels that are neither a row's nor mined have no part in it: a teacher's small probability of them would pull
    their scores up with nothing against it.
    """
    teacher = full_precision(teacher)
    negative = mined(teacher, targets, negatives)
    if positives == "labels":
        return one_versus_all(student, targets.to(teacher), negative)
    p = (teacher / temperature).sigmoid()
    return one_versus_all(student, p * ((targets > 0) | (negative > 0)), (1 - p) * negative)


class Double(RetrievalObjective):
    """L = ce_weight * one-versus-all with the labels + weight * double_loss."""

    class Config(RetrievalObjective.Config):
        idle = MappingProxyType({"temperature": ({"positives": "labels"},)})

        ce_weight: Weight = 0.0
        """Of the one-versus-all loss with the labels and all negatives."""
        weight: Weight = 1.0
        """Of the term."""
        negatives: Count = 50
        """Labels that each row is told apart from."""
        temperature: Positive = 1.0
        """Divides the teacher's scores."""
        positives: Literal["teacher", "labels"] = "teacher"
        """What the positive part is weighted by."""

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        c = self.config
        scores = (batch.student.logits, batch.teacher.logits)
        return {"double": c.weight * double_loss(*scores, batch.targets, c.negatives, c.temperature, c.positives)}
