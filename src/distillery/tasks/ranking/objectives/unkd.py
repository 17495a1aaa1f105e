"""UnKD: Chen et al., "Unbiased knowledge distillation for recommendation" (arXiv:2211.14729, WSDM 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.config import Count, Finite, Positive, Weight
from distillery.tasks.ranking.candidates import candidate_lists
from distillery.tasks.ranking.objectives.base import Context, RankingBatch, RankingObjective, log_probability
from distillery.tasks.ranking.popularity import pairs_per_group, popularity_groups, shares
from distillery.tasks.ranking.sampling import rank_pairs

FLOOR = 1e-10


def unkd_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Mean of -log(sigmoid(better - worse) + 1e-10) over rows and pairs, (B, n) student's scores each.

    The paper sums over a user's pairs and takes the mean over users; the released code, and this, takes the mean over
    the pairs and over the training pairs of the batch, so that a user counts once per training pair.
    """
    return -log_probability(better - worse, FLOOR).mean()


class UnKD(RankingObjective):
    """L = BPR + decay * penalty + weight * UnKD on pairs of items of like popularity.

    The items are cut into `groups` of about equally many training pairs; in each group two of the teacher's best unseen
    items are drawn by rank, n_g times for each user and epoch, and the student is to order them as the teacher does.
    `groups: 1` is the control: the same loss, without strata.

    A user with less than two unseen items in a group has no pair there (the released code loops for ever): an item
    compared with itself stands in, which has no gradient.

    The released code swaps two ranks that came in the wrong order through a view of the same memory, so that half of
    its pairs compare an item with itself. Its weight w is therefore w / 2 here; `released_pairs` does as it does.
    """

    class Config(RankingObjective.Config):
        weight: Weight = 0.1
        """The README's 1.0 was for another data set, and spoils the student on CiteULike-t."""
        groups: Count = 4
        """Strata; 1: none."""
        pairs: Count = 30
        """Of each user and epoch, over all groups."""
        power: Finite = 0.0
        """Groups share the pairs by their mirrored popularity to this power; 0: equally."""
        scale: Positive = 20.0
        """Of the decay of the probability with the rank, in ranks."""
        depth: Count = 1000
        """Of the teacher's ranking in each group."""
        released_pairs: bool = False
        """Let half of the pairs compare an item with itself, as the released code does."""

    teaches = True
    config: Config
    lists: Tensor
    lengths: Tensor

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        item = context.train.item
        group_of = popularity_groups(item, context.items, self.config.groups)
        self.pairs = pairs_per_group(shares(item, group_of, self.config.power), self.config.pairs)
        lists, lengths = candidate_lists(self.scorer, context.train, group_of, self.config.depth)
        self.register_buffer("lists", lists, persistent=False)
        self.register_buffer("lengths", lengths, persistent=False)

    def items(self, epoch: int) -> Tensor:
        """(U, 2 n): the better items of all pairs, then the worse ones."""
        generator = self.context.generator("unkd", epoch)
        both: list[tuple[Tensor, Tensor]] = []
        for group, pairs in enumerate(self.pairs):
            length = self.lengths[:, group].cpu()[:, None].expand(-1, pairs)
            better, worse = rank_pairs(length, self.config.scale, generator)
            if self.config.released_pairs:
                worse = torch.where(torch.rand(worse.shape, generator=generator) < 0.5, better, worse)
            table = self.lists[:, group]
            both.append((table.gather(1, better.to(table.device)), table.gather(1, worse.to(table.device))))
        return torch.cat([*(b for b, _ in both), *(w for _, w in both)], dim=1).long().clamp(min=0)

    def distill(self, batch: RankingBatch) -> dict[str, Tensor]:
        better, worse = batch.extra.chunk(2, dim=1)
        return {"unkd": self.config.weight * unkd_loss(better, worse)}
