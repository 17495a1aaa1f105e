"""What a recommender's training loss is handed, and what it hands back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Config as BaseConfig
from distillery.config import Weight
from distillery.data.views import seed_for
from distillery.errors import DistilleryError
from distillery.objectives.soft import full_precision
from distillery.tasks.ranking.interactions import Pairs
from distillery.tasks.ranking.models import Scores

Scorer = Callable[[Tensor], Tensor]  # (B,) users -> (B, I) scores of all items


@dataclass(frozen=True, slots=True)
class Context:
    """The facts of a run.

    Attributes:
        train: the training pairs.
        items: I.
        seed: of the run; whatever an objective draws is a function of it and of the epoch.
        teacher: the teacher's scores; None for a student alone.
    """

    train: Pairs
    items: int
    seed: int = 0
    teacher: Scorer | None = None

    def generator(self, what: str, epoch: int) -> torch.Generator:
        """The random numbers of one purpose in one epoch, always the same ones."""
        return torch.Generator().manual_seed(seed_for(self.seed, "ranking", what, epoch))


@dataclass(frozen=True, slots=True)
class RankingBatch:
    """One training batch: B training pairs, with an unseen item for each.

    Attributes:
        user: (B,) int64.
        student: the student's scores of the pair's item, of the unseen one, and of what `RankingObjective.items` asked
            for; (B, 2 + M), with gradient.
        epoch: counted from 1.
    """

    user: Tensor
    student: Scores
    epoch: int

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

    A method that distils overrides `items`, which says what items of each user the student is to score beside the
    training pair, and `distill`, which compares these scores. What it needs of the teacher it takes from the context
    when it is built: teachers here are two tables of embeddings, and their rankings do not change.
    """

    class Config(BaseConfig):
        """Keys of a method's block."""

        decay: Weight = 0.01
        """Of the penalty on the embeddings of each batch."""

    teaches: ClassVar[bool] = False
    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__()
        self.context = context
        self.config = config if config is not None else type(self).Config()

    @property
    def scorer(self) -> Scorer:
        """The teacher's scores. Raises DistilleryError if there is no teacher."""
        if self.context.teacher is None:
            raise DistilleryError(f"{type(self).__name__} distils: the pair needs a teacher")
        return self.context.teacher

    def items(self, epoch: int) -> Tensor:
        """The items that every user's scores are wanted of in this epoch, (U, M) int64: none."""
        return torch.empty(len(self.context.train.degree), 0, dtype=torch.int64, device=self.context.train.item.device)

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


def enough(what: str, wanted: int, length: Tensor) -> None:
    """Refuse a list that is longer than what some user has: (U,) lengths. Raises DistilleryError."""
    short = int(length.argmin())
    if length[short] < wanted:
        has = int(length[short])
        raise DistilleryError(f"{what} takes {wanted} unseen items of every user, but user {short} has {has}: lower it")
