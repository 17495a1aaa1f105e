"""What the losses of label retrieval share."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from distillery.config import Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.soft import full_precision


def one_versus_all(scores: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Mean over rows of sum_l positive_l * -log sigmoid(s_l) + negative_l * -log sigmoid(-s_l); (B, L) each.

    Finite for all finite scores.
    """
    scores = full_precision(scores)
    return -(positive * F.logsigmoid(scores) + negative * F.logsigmoid(-scores)).sum(1).mean()


class RetrievalObjective(Objective):
    """L = ce_weight * one-versus-all loss with the labels, plus the terms of `distill`. Targets are (B, L) flags."""

    class Config(Objective.Config):
        ce_weight: Weight = 1.0
        """Of the one-versus-all loss with the labels, which is here what the cross-entropy is for classes."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    config: Config

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        if self.config.ce_weight == 0:
            return {}
        targets = batch.targets.to(full_precision(batch.student.logits))
        return {"ova": self.config.ce_weight * one_versus_all(batch.student.logits, targets, 1 - targets)}
