"""Which items of each user a student is to score beside the training pair: what a method draws from its teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distillery.data.views import seed_for
from distillery.errors import DistilleryError
from distillery.tasks.ranking.candidates import candidate_lists
from distillery.tasks.ranking.interactions import Pairs
from distillery.tasks.ranking.popularity import popularity_groups

Scorer = Callable[[Tensor], Tensor]  # (B,) users -> (B, I) scores of all items


@dataclass(frozen=True, slots=True)
class Ranker:
    """A teacher, as far as a method sees it.

    Attributes:
        train: the training pairs; what is in them is ranked nowhere.
        items: I.
        score: the teacher's scores.
    """

    train: Pairs
    items: int
    score: Scorer

    @property
    def users(self) -> int:
        return len(self.train.starts) - 1

    def best(self, depth: int) -> tuple[Tensor, Tensor]:
        """Each user's best unseen items, the best first, padded with -1, and how many: (U, depth) and (U,) int64."""
        everything = self.train.item.new_zeros(self.items)
        lists, lengths = candidate_lists(self.score, self.train, everything, depth)
        return lists[:, 0].long(), lengths[:, 0]

    def best_by_group(self, groups: int, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """The group of each item (`popularity_groups`), and the lists of `candidate_lists` for these groups."""
        group_of = popularity_groups(self.train.item, self.items, groups)
        return group_of, *candidate_lists(self.score, self.train, group_of, depth)


class Lists:
    """Base of what the methods draw. Built once per teacher; every draw is a function of (seed, epoch).

    Attributes:
        taught: (U, M) scores that the teacher gives to the items of `items`; None for methods that need only its order.
    """

    taught: Tensor | None = None

    def __init__(self, config: Any, ranker: Ranker) -> None:
        """Take the objective's settings and the teacher."""
        self.config, self.ranker = config, ranker

    def items(self, seed: int, epoch: int) -> Tensor:
        """The items of every user for an epoch, counted from 1: (U, M) int64."""
        raise TypeError(f"{type(self).__name__} defines no items()")

    def generator(self, *parts: object) -> torch.Generator:
        """The random numbers of one purpose, always the same ones."""
        return torch.Generator().manual_seed(seed_for("ranking", type(self).__name__, *parts))


def enough(what: str, wanted: int, length: Tensor) -> None:
    """Refuse a list that is longer than what some user has: (U,) lengths. Raises DistilleryError."""
    short = int(length.argmin())
    if length[short] < wanted:
        has = int(length[short])
        raise DistilleryError(f"{what} takes {wanted} unseen items of every user, but user {short} has {has}: lower it")
