"""CD: Lee et al., "Collaborative distillation for top-N recommendation" (arXiv:1911.05276, ICDM 2019).

As the released code of UnKD has it: teacher-guided, with items that are drawn once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.config import Count, Finite, Positive, Weight
from distillery.objectives.base import Batch
from distillery.tasks.ranking.lists import Lists, Ranker, enough
from distillery.tasks.ranking.objectives.base import RankingObjective, extra, log_probability
from distillery.tasks.ranking.sampling import distinct_ranks

FLOOR = 1e-10


def cd_loss(student: Tensor, teacher: Tensor, temperature: float = 2.0, shift: float = 0.0) -> Tensor:
    """Mean binary cross-entropy of sigmoid(student) with sigmoid((teacher + shift) / temperature), (B, n) scores each.

    1e-10 is added to either probability before its logarithm, as released. The released 1 - sigmoid + 1e-10 is rounded
    away in float32 from a score of about 17 on and then has a wrong gradient; here both logarithms are exact.
    """
    wanted = ((teacher + shift) / temperature).sigmoid()
    return -(wanted * log_probability(student, FLOOR) + (1 - wanted) * log_probability(-student, FLOOR)).mean()


def better_of_two(length: int, scale: float) -> Tensor:
    """(length,) float64 probability of each rank to be the better of two draws, each with p(r) ~ exp(-(r + 1) / scale).

    The two may be the same rank.
    """
    p = (-torch.arange(1, length + 1, dtype=torch.float64) / scale).softmax(0)
    tail = p.flip(0).cumsum(0).flip(0)
    return p * (2 * tail - p)


class BetterOfTwo(Lists):
    """Items drawn by the teacher's ranking, the same ones in every epoch and for every seed, with its scores."""

    taught: Tensor

    def __init__(self, config: CD.Config, ranker: Ranker) -> None:
        super().__init__(config, ranker)
        lists, lengths = ranker.best(config.depth)
        enough("CD's `samples`", config.samples, lengths)
        weight = better_of_two(lists.shape[1], config.scale)
        ranks = distinct_ranks(weight, lengths, config.samples, self.generator())
        self.drawn = lists.gather(1, ranks.to(lists.device))
        users = torch.arange(len(lists), device=lists.device)
        self.taught = torch.cat([ranker.score(part).gather(1, self.drawn[part]).detach() for part in users.split(512)])

    def items(self, seed: int, epoch: int) -> Tensor:
        return self.drawn


class CD(RankingObjective):
    """L = BPR + decay * penalty + weight * CD on `samples` of the teacher's `depth` best unseen items.

    Defaults are the released ones, but for the weight. Their probabilities exp(-lamda * rank / depth), lamda = 1/20,
    fall by 5 % over the whole list: in this notation `scale` = 20 * depth. An item is the better of two draws, and none
    is taken twice.
    """

    class Config(RankingObjective.Config):
        weight: Weight = 0.1
        """Of the distillation term."""
        samples: Count = 50
        """Items of each user, drawn once per teacher."""
        depth: Count = 3000
        """Of the teacher's ranking; shorter where a user has fewer unseen items."""
        scale: Positive = 60000.0
        """Of the decay of the probability with the rank, in ranks."""
        temperature: Positive = 2.0
        """Divides the teacher's scores."""
        shift: Finite = 0.0
        """Added to the teacher's scores before."""

    lists = BetterOfTwo
    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        loss = cd_loss(extra(batch), batch.teacher.logits.to(extra(batch)), self.config.temperature, self.config.shift)
        return {"cd": self.config.weight * loss}
