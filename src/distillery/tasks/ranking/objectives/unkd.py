"""UnKD: Chen et al., "Unbiased knowledge distillation for recommendation" (arXiv:2211.14729, WSDM 2023)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from distillery.config import Count, Finite, Positive, Weight
from distillery.objectives.base import Batch
from distillery.tasks.ranking.lists import Lists, Ranker
from distillery.tasks.ranking.objectives.base import RankingObjective, extra, log_probability
from distillery.tasks.ranking.popularity import pairs_per_group, shares
from distillery.tasks.ranking.sampling import rank_pairs

FLOOR = 1e-10


def unkd_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Mean of -log(sigmoid(better - worse) + 1e-10) over rows and pairs, (B, n) student's scores each.

    The paper sums over a user's pairs and takes the mean over users; the released code, and this, takes the mean over
    the pairs and over the training pairs of the batch, so that a user counts once per training pair.
    """
    return -log_probability(better - worse, FLOOR).mean()


class Strata(Lists):
    """Pairs of the teacher's best items of one group each, drawn by rank: the better items of all, then the worse."""

    def __init__(self, config: UnKD.Config, ranker: Ranker) -> None:
        super().__init__(config, ranker)
        group_of, self.lists, self.lengths = ranker.best_by_group(config.groups, config.depth)
        self.pairs = pairs_per_group(shares(ranker.train.item, group_of, config.power), config.draws)

    def items(self, seed: int, epoch: int) -> Tensor:
        generator = self.generator(seed, epoch)
        better, worse = [], []
        for group, pairs in enumerate(self.pairs):
            length = self.lengths[:, group, None].expand(-1, pairs)
            first, second = rank_pairs(length, self.config.scale, generator)
            if self.config.released_pairs:
                second = torch.where(torch.rand(second.shape, generator=generator) < 0.5, first, second)
            table = self.lists[:, group]
            better.append(table.gather(1, first.to(table.device)))
            worse.append(table.gather(1, second.to(table.device)))
        return torch.cat([*better, *worse], dim=1).long().clamp(min=0)  # an empty list gives -1: any item with itself


class UnKD(RankingObjective):
    """L = BPR + decay * penalty + weight * UnKD on pairs of items of like popularity.

    The items are cut into `groups` of about equally many training pairs; in each group two of the teacher's best unseen
    items are drawn by rank, n_g times for each user and epoch, and the student is to order them as the teacher does.

    A user with less than two unseen items in a group has no pair there (the released code loops for ever): an item
    compared with itself stands in, which has no gradient.

    The released code swaps two ranks that came in the wrong order through a view of the same memory, so that half of
    its pairs compare an item with itself. Its weight w is therefore w / 2 here; `released_pairs` does as it does.
    """

    class Config(RankingObjective.Config):
        idle = MappingProxyType({"power": ({"groups": 1},)})

        weight: Weight = 0.1
        """The README's 1.0 was for another data set, and spoils the student on CiteULike-t."""
        groups: Count = 4
        """Strata, or about so many (`popularity_groups`)."""
        draws: Count = 30
        """Pairs of each user and epoch, over all groups."""
        power: Finite = 0.0
        """Groups share the pairs by their mirrored popularity to this power; 0: equally."""
        scale: Positive = 20.0
        """Of the decay of the probability with the rank, in ranks."""
        depth: Count = 1000
        """Of the teacher's ranking in each group."""
        released_pairs: bool = False
        """Let half of the pairs compare an item with itself, as the released code does."""

    lists = Strata
    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        better, worse = extra(batch).chunk(2, dim=1)
        return {"unkd": self.config.weight * unkd_loss(better, worse)}


class OneStratum(UnKD):
    """The control of UnKD (arXiv:2211.14729): the same loss on pairs of items of any popularity."""

    class Config(UnKD.Config):
        groups: Literal[1] = 1
        """There is one stratum."""

    config: Config
