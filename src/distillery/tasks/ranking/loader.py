"""Training pairs on their way to the step, each with an unseen item and with what the method wants scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distillery.data.loader import Cached, Samples
from distillery.data.views import copied, order, seed_for
from distillery.tasks.ranking.data import RankData
from distillery.tasks.ranking.interactions import Pairs
from distillery.tasks.ranking.sampling import Unseen


class PairLoader:
    """A `Loader` of whole arrays.

    A sample is a training pair. Its inputs are (user, items), items being the pair's own, an unseen one, drawn anew in
    every epoch, and those that the teacher source gives for the user, if there is one.
    """

    static = False

    def __init__(self, data: RankData) -> None:
        self.data, self.train = data, data.pairs.train
        self.device, self.count = self.train.item.device, len(self.train)
        self.unseen = Unseen(self.train, data.pairs.items)

    def epoch(self, seed: int, epoch: int, strong: bool = False, cached: Cached | None = None) -> PairEpoch:
        index = order(seed, epoch, self.count).to(self.device)
        generator = torch.Generator().manual_seed(seed_for(seed, epoch, "unseen"))
        unseen = self.unseen.draw(self.train.user, generator)[index]
        user = self.train.user[index]
        rows = cached(user, torch.zeros_like(user), epoch) if cached else []
        items = [self.train.item[index, None], unseen[:, None], *(r for r in rows[:1])]
        return PairEpoch(index, user, torch.cat(items, dim=1), [copied(r, self.device) for r in rows[1:]])

    def splits(self) -> dict[str, RankSplit]:
        held = {"test": self.data.pairs.test, "val": self.data.pairs.val}
        return {name: RankSplit(pairs) for name, pairs in held.items() if len(pairs)}


@dataclass
class PairEpoch:
    """One epoch laid out on the device.

    Attributes:
        index: (N,) int64: which training pair.
        user: (N,) its user.
        items: (N, 2 + M) the items to score.
        taught: the teacher's scores of the last M of them, (N, M), where the method compares with those; else empty.
    """

    index: Tensor
    user: Tensor
    items: Tensor
    taught: list[Tensor]

    def tensors(self) -> list[Tensor]:
        return [self.index, self.user, self.items, *self.taught]

    def batch(self, rows: slice | Tensor) -> Samples:
        inputs = (self.user[rows], self.items[rows])
        return Samples(inputs, self.user[rows], self.index[rows], [t[rows] for t in self.taught])


class RankSplit:
    """A `Split` whose samples are the users with held-out items."""

    def __init__(self, held: Pairs) -> None:
        self.held = held
        self.users = held.user.unique()
        self.count = len(self.users)

    def batches(self, size: int, rank: int = 0, ranks: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.count, size)[rank::ranks]:
            users = self.users[start : start + size]
            yield users, users
