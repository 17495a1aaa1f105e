"""What a teacher prefers: for each user the unseen items of each group, by falling score."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distillery.tasks.ranking.interactions import Pairs


@torch.no_grad()
def candidate_lists(
    score: Callable[[Tensor], Tensor], train: Pairs, group_of: Tensor, depth: int = 1000, rows: int = 256
) -> tuple[Tensor, Tensor]:
    """Rank each user's unseen items within each group.

    Args:
        score: maps (B,) users to their (B, I) scores of all items.
        group_of: (I,) group of each item from 0, negative for none.
        depth: of each list; what is below is left out.
        rows: users done at a time.

    Returns:
        Items (U, groups, longest) int32, the best first and of equal scores the lower one first, padded with -1; and
        the lengths of the lists (U, groups) int64. A score that is not a number ranks last.
    """
    members = [(group_of == g).nonzero().squeeze(1) for g in range(int(group_of.max()) + 1)]
    users = len(train.starts) - 1
    longest = min(depth, max(map(len, members)))
    lists = torch.full((users, len(members), longest), -1, dtype=torch.int32, device=group_of.device)
    lengths = torch.zeros(users, len(members), dtype=torch.int64, device=group_of.device)
    for part in torch.arange(users, device=group_of.device).split(rows):
        scores, seen = score(part).nan_to_num(nan=-torch.inf), train.mask(part, len(group_of))
        for g, items in enumerate(members):
            best_first = scores[:, items].sort(dim=1, descending=True, stable=True).indices
            ranked, skip = items[best_first], seen[:, items].gather(1, best_first)
            # Unseen ones to the front, in their order: a score of minus infinity would not tell them from unseen ones.
            ranked = ranked.gather(1, skip.sort(dim=1, stable=True).indices[:, :depth])
            length = (~skip).sum(1).clamp(max=depth)
            empty = torch.arange(ranked.shape[1], device=ranked.device) >= length[:, None]
            lists[part, g, : ranked.shape[1]] = ranked.masked_fill(empty, -1).int()
            lengths[part, g] = length
    return lists, lengths
