"""Recall and NDCG of the best k unseen items, for all items and by group of popularity. Nothing is sampled.

As in the released code of UnKD (chengang95/UnKD), which the published numbers come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distillery.tasks.ranking.interactions import Pairs


def top_items(scores: Tensor, k: int) -> Tensor:
    """The k items of highest score in each row, the best first; of equal scores the lower item.

    (B, I) scores in, (B, k) int64 out. `topk` alone gives ties in an order that differs between devices and versions.
    """
    values, found = scores.topk(k, dim=1)
    bound = values[:, -1:]
    ambiguous = (scores >= bound).sum(1) > k
    if ambiguous.any():
        found[ambiguous] = scores[ambiguous].sort(dim=1, descending=True, stable=True).indices[:, :k]
    found = found.sort(dim=1).values
    return found.gather(1, scores.gather(1, found).sort(dim=1, descending=True, stable=True).indices)


@torch.no_grad()
def recommend(score: Callable[[Tensor], Tensor], users: Tensor, train: Pairs, k: int, rows: int = 512) -> Tensor:
    """The best k items that each of (n,) users has no training pair with, (n, k) int64.

    `score` maps (B,) users to their (B, I) scores of all items; `rows` users are done at a time. A score that is not a
    number ranks last.
    """
    found = []
    for part in users.split(rows):
        # The lowest number is below all others, and above what the user has already.
        scores = score(part).float().nan_to_num(nan=torch.finfo(torch.float32).min)
        found.append(top_items(scores.masked_fill(train.mask(part, scores.shape[1]), -torch.inf), k))
    return torch.cat(found)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Fractions over users, each between 0 and 1.

    Attributes:
        recall: of a user's held-out items, those among the best k.
        ndcg: their discounted gain over the largest possible one.
        recall_by_group: recall of the held-out items of each group. The sum is divided by the number of all users, also
            those without such an item, as released; so groups do not average to `recall`.
        recall_by_group_of_concerned: likewise, divided by the number of users with such an item; 0 if there is none.
        share_by_group: of all recommended items that belong to a group, those of each.
    """

    recall: float
    ndcg: float
    recall_by_group: tuple[float, ...]
    recall_by_group_of_concerned: tuple[float, ...]
    share_by_group: tuple[float, ...]


def measure(best: Tensor, users: Tensor, held: Pairs, group_of: Tensor) -> Ranking:
    """Compare recommendations with held-out pairs.

    Args:
        best: (n, k) items recommended to `users`, the best first.
        users: (n,) users, each with a held-out pair at least.
        held: the held-out pairs.
        group_of: (I,) group of each item from 0, negative for none (`popularity_groups`).
    """
    k, groups = best.shape[1], int(group_of.max()) + 1
    hit = held.has(users[:, None].expand_as(best), best).double()
    row, item = held.of_users(users)
    size = held.degree[users]
    discount = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()
    ideal = discount.cumsum(0).to(best.device)[size.clamp(max=k) - 1]  # a sum on the CPU: CUDA's has no fixed order
    discount = discount.to(best.device)
    all_users, concerned, share = [], [], []
    for g in range(groups):
        wanted = torch.bincount(row[group_of[item] == g], minlength=len(users))
        part = ((hit * (group_of[best] == g)).sum(1) / wanted.clamp(min=1)).sum().item()
        all_users.append(part / len(users))
        concerned.append(part / max(int((wanted > 0).sum()), 1))
        share.append(int((group_of[best] == g).sum()))
    return Ranking(
        (hit.sum(1) / size).mean().item(),
        ((hit * discount).sum(1) / ideal).mean().item(),
        tuple(all_users),
        tuple(concerned),
        tuple(s / max(sum(share), 1) for s in share),
    )
