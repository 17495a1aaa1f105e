"""Exact random draws, all at once: unseen items, ranks of a list, pairs of ranks. The generator decides everything.

Nothing is drawn and thrown away, so nothing can loop for ever on a short list, and an epoch of CiteULike-t (113,000
negatives, 160,000 pairs of ranks) takes about 40 ms on one core.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distillery.tasks.ranking.interactions import Pairs


class Unseen:
    """The items that a user has no training pair with, in ascending order, without a list of them."""

    def __init__(self, train: Pairs, items: int) -> None:
        """Take the training pairs and the number of items."""
        within = torch.arange(len(train), device=train.item.device) - train.starts[train.user]
        # Before s_j of a user's seen items s_0 < s_1 < ... come s_j - j unseen ones; the keys of all users in one row.
        self.keys = train.user * (items + 1) + train.item - within
        self.starts, self.stride = train.starts, items + 1
        self.count = items - train.degree  # (U,)

    def item(self, user: Tensor, rank: Tensor) -> Tensor:
        """The `rank`-th unseen item of each user; `user` and `rank` of one shape, 0 <= rank < count[user]."""
        before = torch.searchsorted(self.keys, user * self.stride + rank, right=True)
        return rank + before - self.starts[user]

    def draw(self, user: Tensor, generator: torch.Generator) -> Tensor:
        """One unseen item for each entry of `user`, uniformly; every such user has at least one."""
        return self.item(user, uniform(self.count[user], generator).to(user.device))


def uniform(count: Tensor, generator: torch.Generator) -> Tensor:
    """A number from 0 to count - 1 for each entry of `count`, uniformly; on the CPU, like all that is drawn here."""
    count = count.cpu()
    drawn = torch.rand(count.shape, generator=generator, dtype=torch.float64)
    return torch.minimum((drawn * count).long(), count - 1)


def rank_pairs(length: Tensor, scale: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two different ranks of a list of `length` each, the better (smaller) first, for every entry of `length`.

    Rank r has probability proportional to exp(-(r + 1) / scale), r < length, and the two are independent given that
    they differ. A list of less than two has no such pair: it gives (0, 0).

    Both are drawn by inverting their distribution functions. With q = exp(-1 / scale), the better rank is below a with
    probability proportional to (1 - y^2) / (1 - q^2) - q^(length - 1) (1 - y) / (1 - q), y = q^a, which is a quadratic
    equation in y; the distance to the other one is geometric on what is left of the list.
    """
    length = length.cpu()
    first, second = torch.rand(2, *length.shape, generator=generator, dtype=torch.float64)
    n = length.clamp(min=2).double()
    log_q = -1 / scale
    q = math.exp(log_q)
    square, linear = 1 / (1 - q**2), torch.exp(log_q * (n - 1)) / (1 - q)
    last = torch.exp(log_q * (n - 1))  # y of a = length - 1, below which the better rank always is
    total = square * (1 - last**2) - linear * (1 - last)
    discriminant = linear**2 + 4 * square * (square - linear - first * total)
    y = (linear + discriminant.clamp(min=0).sqrt()) / (2 * square)
    better = _whole(y.log() / log_q, n - 2)
    left = n - 1 - better
    distance = _whole(torch.log1p(second * torch.expm1(log_q * left)) / log_q, left - 1)
    worse = better + 1 + distance
    short = length < 2
    return better.long().masked_fill(short, 0), worse.long().masked_fill(short, 0)


def _whole(value: Tensor, largest: Tensor) -> Tensor:
    return torch.minimum(value.floor().clamp(min=0), largest)


def distinct_ranks(weight: Tensor, length: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` different ranks of each list, drawn one after the other with probability proportional to `weight`.

    Args:
        weight: (L,) of every rank, > 0.
        length: (U,) int64, how long the lists are: ranks from there on cannot be drawn; at least `count`.

    Returns:
        (U, count) int64, the first drawn first.
    """
    waiting = torch.empty(len(length), len(weight), dtype=torch.float64).exponential_(generator=generator) / weight
    waiting[torch.arange(len(weight)) >= length.cpu()[:, None]] = math.inf
    return waiting.topk(count, dim=1, largest=False, sorted=True).indices


def distinct(count: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """(U, `draws`) different numbers from 0 to count - 1 for each entry of `count` (U,), every set alike likely."""
    count = count.cpu()
    chosen = torch.empty(len(count), 0, dtype=torch.int64)
    for j in range(draws):
        number = uniform(count - j, generator)
        for earlier in chosen.sort(dim=1).values.T:  # the number-th of those that are left
            number = number + (number >= earlier)
        chosen = torch.cat([chosen, number[:, None]], dim=1)
    return chosen
