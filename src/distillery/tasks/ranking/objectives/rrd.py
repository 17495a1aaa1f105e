"""RRD, the ranking half of DE-RRD: Kang et al., "DE-RRD" (arXiv:2012.04357, CIKM 2020), as released with UnKD."""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.config import Count, Positive, Weight
from distillery.objectives.base import Batch
from distillery.tasks.ranking.interactions import Pairs
from distillery.tasks.ranking.lists import Lists, Ranker, enough
from distillery.tasks.ranking.objectives.base import RankingObjective, extra
from distillery.tasks.ranking.sampling import Unseen, distinct, distinct_ranks


def rrd_loss(interesting: Tensor, uninteresting: Tensor) -> Tensor:
    """Mean negative log-likelihood of the relaxed ranking: the K interesting items in order, all above the L others.

    (B, K) scores, the teacher's favourite first, and (B, L) scores in. Term k of a row is the log-sum-exp of the scores
    from place k on together with all the others, minus the score at k.
    """
    from_here_on = interesting.flip(1).logcumsumexp(1)
    below = torch.logaddexp(from_here_on, uninteresting.logsumexp(1, keepdim=True))
    return (below.sum(1) - interesting.sum(1)).mean()


class Interesting(Lists):
    """Some of the teacher's best items in its order, then some of all the items below them."""

    def __init__(self, config: RRD.Config, ranker: Ranker) -> None:
        super().__init__(config, ranker)
        train = ranker.train
        self.lists, self.lengths = ranker.best(config.depth)
        enough("RRD's `interesting`", config.interesting, self.lengths)
        user = torch.arange(ranker.users, device=train.item.device)[:, None].expand_as(self.lists)
        listed = self.lists >= 0
        taken = (torch.cat([train.user, user[listed]]), torch.cat([train.item, self.lists[listed]]))
        self.rest = Unseen(Pairs.of(*taken, ranker.users), ranker.items)
        enough("RRD's `uninteresting`, below `depth`,", config.uninteresting, self.rest.count)
        self.once = None if config.redraw else self._draw()

    def _draw(self, *parts: object) -> Tensor:
        generator, device = self.generator(*parts), self.lists.device
        weight = torch.exp(-torch.arange(1, self.lists.shape[1] + 1, dtype=torch.float64) / self.config.scale)
        ranks = distinct_ranks(weight, self.lengths, self.config.interesting, generator).sort(dim=1).values
        others = distinct(self.rest.count, self.config.uninteresting, generator).to(device)
        user = torch.arange(len(others), device=device)[:, None].expand_as(others)
        return torch.cat([self.lists.gather(1, ranks.to(device)), self.rest.item(user, others)], dim=1)

    def items(self, seed: int, epoch: int) -> Tensor:
        return self._draw(seed, epoch) if self.once is None else self.once


class RRD(RankingObjective):
    """L = BPR + decay * penalty + weight * RRD.

    Of the teacher's `depth` best unseen items, `interesting` are drawn with probability proportional to
    exp(-rank / scale) and kept in the teacher's order; `uninteresting` ones are any of the rest. Defaults and the
    sigmoid are those of UnKD's release, which draws once. The other half of DE-RRD (distillation experts)
    compares embeddings and is not part of this method.
    """

    class Config(RankingObjective.Config):
        weight: Weight = 0.001
        """Of the distillation term."""
        interesting: Count = 20
        """How many of the teacher's best items."""
        uninteresting: Count = 20
        """How many of the others."""
        depth: Count = 100
        """How much of the teacher's ranking counts as interesting."""
        scale: Positive = 30.0
        """Of the decay of the probability with the rank, in ranks."""
        squash: bool = True
        """Compare sigmoids of the scores; false: the scores."""
        redraw: bool = False
        """Draw anew in every epoch; false: once."""

    lists = Interesting
    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        scores = extra(batch).sigmoid() if self.config.squash else extra(batch)
        loss = rrd_loss(scores[:, : self.config.interesting], scores[:, self.config.interesting :])
        return {"rrd": self.config.weight * loss}
