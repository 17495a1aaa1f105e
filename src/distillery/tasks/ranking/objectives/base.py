"""What a recommender's training loss is handed, and what it hands back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Config as BaseConfig
from distillery.config import Weight
from distillery.objectives.soft import full_precision
from distillery.tasks.ranking.lists import Lists
from distillery.tasks.ranking.models import Scores


@dataclass(frozen=True, slots=True)
class RankingBatch:
    """One training batch: B training pairs, with an unseen item for each.

    Attributes:
        student: the student's scores of the pair's item, of the unseen one, and of the M items of the method's
            `Lists`; (B, 2 + M), with gradient.
        taught: (B, M) scores that the teacher gives to these, for methods whose `Lists` have them; else (B, 0).
    """

    student: Scores
    taught: Tensor

    @property
    def extra(self) -> Tensor:
        """(B, M) scores of the items asked for, in full precision."""
        return full_precision(self.student.values[:, 2:])


def log_probability(margin: Tensor, floor: float = 0.0) -> Tensor:
    """log(sigmoid(margin) + floor), elementwise, finite for every finite margin, and so is its gradient."""
    log = F.logsigmoid(margin)
    return torch.logaddexp(log, log.new_tensor(math.log(floor))) if floor else log


def bpr(positive: Tensor, negative: Tensor, floor: float = 0.0) -> Tensor:
    """Mean of -log(sigmoid(positive - negative) + floor) over (B,) pairs of scores.

    Rendle et al., "BPR" (arXiv:1205.2618, UAI 2009). The released code of UnKD adds 1e-10 for BPR-MF, nothing for
    LightGCN.
    """
    return -log_probability(positive - negative, floor).mean()


def penalty(user: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Half the sum of squares of the batch's embeddings, (B, d) each, divided by B."""
    return (user.square().sum() + first.square().sum() + second.square().sum()) / (2 * len(user))


class RankingObjective(nn.Module):
    """L = BPR + decay * penalty, plus the terms of `distill`.

    A method that distils names in `lists` what items of each user the student is to score beside the training pair, and
    overrides `distill`, which compares these scores.
    """

    class Config(BaseConfig):
        """Keys of a method's block."""

        decay: Weight = 0.01
        """Of the penalty on the embeddings of each batch."""

    lists: ClassVar[type[Lists] | None] = None
    config: Config

    def __init__(self, num_items: int, config: Config | None = None) -> None:
        super().__init__()
        self.num_items = num_items
        self.config = config if config is not None else type(self).Config()

    def supervised(self, batch: RankingBatch) -> dict[str, Tensor]:
        """The terms of plain training."""
        student = batch.student
        values = full_precision(student.values)
        terms = {"bpr": bpr(values[:, 0], values[:, 1], student.floor)}
        if self.config.decay and student.user is not None and student.first is not None and student.second is not None:
            terms["penalty"] = self.config.decay * penalty(student.user, student.first, student.second)
        return terms

    def distill(self, batch: RankingBatch) -> dict[str, Tensor]:
        """The weighted distillation terms, scalars by name."""
        return {}

    def forward(self, batch: RankingBatch) -> dict[str, Tensor]:
        """All weighted terms, scalars by name; their sum is the loss."""
        return {**self.supervised(batch), **self.distill(batch)}
