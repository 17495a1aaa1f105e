"""Which user chose which item, split into training, validation and test pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """(user, item) pairs, sorted by user and within a user by item; no pair twice.

    Attributes:
        user, item: (N,) int64.
        starts: (U + 1,) int64; the pairs of user u are at starts[u] to starts[u + 1] - 1.
    """

    user: Tensor
    item: Tensor
    starts: Tensor

    @classmethod
    def of(cls, user: Tensor, item: Tensor, users: int) -> Pairs:
        """Sort pairs of `users` users in all."""
        order = (user * (int(item.max()) + 1 if len(item) else 1) + item).argsort(stable=True)
        starts = torch.zeros(users + 1, dtype=torch.int64)
        starts[1:] = torch.bincount(user.cpu(), minlength=users).cumsum(0)
        return cls(user[order], item[order], starts.to(user.device))

    def __len__(self) -> int:
        return len(self.user)

    @property
    def degree(self) -> Tensor:
        """(U,) pairs of each user."""
        return self.starts.diff()

    def mask(self, users: Tensor, items: int) -> Tensor:
        """(B, `items`) bool: which items the (B,) users have a pair with."""
        row, item = self.of_users(users)
        mask = torch.zeros(len(users), items, dtype=torch.bool, device=item.device)
        mask[row, item] = True
        return mask

    def of_users(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs of (B,) users as (position in `users`, item), both (n,)."""
        degree = self.degree[users]
        row = torch.repeat_interleave(torch.arange(len(users), device=users.device), degree)
        within = torch.arange(len(row), device=users.device) - (degree.cumsum(0) - degree)[row]
        return row, self.item[self.starts[users][row] + within]

    def has(self, user: Tensor, item: Tensor) -> Tensor:
        """Whether there is a pair of each user and item; two tensors of one shape in, bool of that shape out."""
        stride = 1 + int(torch.cat([self.item, item.flatten()]).max()) if item.numel() else 1
        keys, wanted = self.user * stride + self.item, user * stride + item
        place = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
        return keys[place] == wanted if len(keys) else torch.zeros_like(wanted, dtype=torch.bool)

    def to(self, device: torch.device | str) -> Pairs:
        return Pairs(self.user.to(device), self.item.to(device), self.starts.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """A recommendation data set. Users and items are numbered from 0.

    Attributes:
        users, items: how many there are.
        train: pairs to learn from.
        val, test: held-out pairs; a user is in one of the two at most.
    """

    users: int
    items: int
    train: Pairs
    val: Pairs
    test: Pairs

    def to(self, device: torch.device | str) -> Interactions:
        train, val, test = (pairs.to(device) for pairs in (self.train, self.val, self.test))
        return Interactions(self.users, self.items, train, val, test)
