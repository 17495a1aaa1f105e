"""What a recommender's training loss is handed, and what it hands back."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.soft import full_precision
from distillery.tasks.ranking.lists import Lists
from distillery.tasks.ranking.models import Scores


def extra(batch: Batch) -> Tensor:
    """(B, M) student's scores, in full precision, of the items that the method's `Lists` chose."""
    return full_precision(batch.student.logits[:, 2:])


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


class RankingObjective(Objective):
    """L = ce_weight * BPR + decay * penalty, plus the terms of `distill`.

    A batch holds B training pairs: `student` are `Scores` of each pair's item, of an unseen item, and of the M items of
    the method's `Lists`, (B, 2 + M); `teacher`, where the lists have them, the teacher's scores of these M.

    A method that distils names its `lists`, which say what items of each user the student is to score beside the
    training pair, and overrides `distill`, which compares these scores.
    """

    class Config(Objective.Config):
        """Keys of a method's block."""

        ce_weight: Weight = 1.0
        """Of the BPR loss, which is here what the cross-entropy is for classes."""
        decay: Weight = 0.001
        """Of the penalty on the embeddings of each batch; teachers have the default."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    lists: ClassVar[type[Lists] | None] = None
    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        """`context.num_classes` is I, and its labels are the items of the training pairs."""
        super().__init__(context, config)
        self.num_items = context.num_classes

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        student = batch.student
        assert isinstance(student, Scores)
        scores, terms = full_precision(student.logits), {}
        if self.config.ce_weight:
            terms["bpr"] = self.config.ce_weight * bpr(scores[:, 0], scores[:, 1], student.floor)
        if self.config.decay:
            terms["penalty"] = self.config.decay * penalty(*student.ego)
        return terms
