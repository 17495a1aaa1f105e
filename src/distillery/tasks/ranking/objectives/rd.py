"""RD: Tang and Wang, "Ranking distillation" (arXiv:1809.07428, KDD 2018), as the released code of UnKD has it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Count, Epochs, Positive, Weight
from distillery.objectives.base import Batch
from distillery.tasks.ranking.lists import Lists, Ranker, enough
from distillery.tasks.ranking.objectives.base import RankingObjective, extra, log_probability
from distillery.tasks.ranking.sampling import Unseen


def position_weights(count: int, scale: float) -> Tensor:
    """(K,) float64 weights exp(-rank / scale), rank from 1, that sum to 1."""
    return (-torch.arange(1, count + 1, dtype=torch.float64) / scale).softmax(0)


def rank_weights(scores: Tensor, others: Tensor, items: int, mu: float) -> Tensor:
    """How far the student ranks each of the teacher's best items below its place: tanh(mu * (rank - place)), or 0.

    Args:
        scores: (B, K) student's scores of the teacher's best items, the best first.
        others: (B, n) student's scores of random unseen items, of which its rank is estimated.
        items: I.
    """
    above = (scores[:, :, None] < others[:, None, :]).to(scores.dtype).mean(2)
    rank = ((items - 1) * above).floor() + 1
    return torch.tanh(mu * (rank - torch.arange(scores.shape[1], device=scores.device))).clamp(min=0)


def rd_loss(scores: Tensor, weights: Tensor) -> Tensor:
    """Mean over rows and places of -weight * log sigmoid(score), (B, K) scores and (B, K) or (K,) weights.

    The released code takes the logarithm of the sigmoid, which in float32 is minus infinity from a score of -104 on and
    has no gradient far earlier; here it is finite.
    """
    return -(weights * log_probability(scores)).mean()


class Best(Lists):
    """The teacher's best items, the same ones in every epoch; later also random unseen ones, which estimate ranks."""

    def __init__(self, config: RD.Config, ranker: Ranker) -> None:
        super().__init__(config, ranker)
        self.best, lengths = ranker.best(config.top)
        enough("RD's `top`", config.top, lengths)
        self.unseen = Unseen(ranker.train, ranker.items)

    def items(self, seed: int, epoch: int) -> Tensor:
        if epoch <= self.config.start_epochs:
            return self.best
        user = torch.arange(len(self.best), device=self.best.device)[:, None].expand(-1, self.config.samples)
        return torch.cat([self.best, self.unseen.draw(user, self.generator(seed, epoch))], dim=1)


class RD(RankingObjective):
    """L = BPR + decay * penalty + weight * RD on the teacher's best `top` unseen items.

    Defaults are the released ones, but for the weight. That code weighs the rest of the loss by 1 - weight: its weight
    w is w / (1 - w) here, but for a common factor 1 - w, which Adam all but takes out.
    """

    class Config(RankingObjective.Config):
        weight: Weight = 3.0
        """Of the distillation term."""
        top: Count = 30
        """Of the teacher's best unseen items."""
        scale: Positive = 1.0
        """Of the decay of the weights with the place, in places."""
        mu: Positive = 0.1
        """Steepness of the rank-dependent weights."""
        samples: Count = 100
        """Unseen items drawn for each user and epoch to estimate a rank."""
        start_epochs: Epochs = 100.0
        """Epochs without rank-dependent weights."""

    lists = Best
    config: Config

    @classmethod
    def faults(cls, config: Config, epochs: int, teachers: int, hidden: bool) -> Iterator[str]:
        if config.start_epochs >= epochs:
            for key in ("mu", "samples"):
                if getattr(config, key) != cls.Config.model_fields[key].default:
                    yield f"{key}: has no effect in {epochs} epochs: set start_epochs below, or leave it out"

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        scores, others = extra(batch)[:, : self.config.top], extra(batch)[:, self.config.top :].detach()
        weights = position_weights(self.config.top, self.config.scale).to(scores)
        if others.shape[1]:
            weights = weights * rank_weights(scores.detach(), others, self.num_items, self.config.mu)
            weights = F.normalize(weights, p=1, dim=1)
        return {"rd": self.config.weight * rd_loss(scores, weights)}
