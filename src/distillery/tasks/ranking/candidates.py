"""What a teacher prefers: for each user the unseen items of each group, by falling score."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distillery.tasks.ranking.interactions import Pairs

SEEN = torch.iinfo(torch.int64).min


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
        keys = _keys(score(part)).masked_fill_(train.mask(part, len(group_of)), SEEN)
        for g, items in enumerate(members):
            best = keys[:, items].topk(min(depth, len(items)), dim=1)
            unseen = best.values != SEEN
            lists[part, g, : unseen.shape[1]] = items[best.indices].masked_fill(~unseen, -1).int()
            lengths[part, g] = unseen.sum(1)
    return lists, lengths


def _keys(scores: Tensor) -> Tensor:
    """(B, I) int64 above `SEEN`, all different, that order the items of a row: by score in float32, then the lower one.

    The best of them are found five times as fast as by a stable sort of all scores.
    """
    bits = (scores.float().nan_to_num(nan=-torch.inf) + 0.0).view(torch.int32)  # adding zero: minus zero is zero
    rising = bits ^ (bits >> 31 & 0x7FFFFFFF)  # of negative numbers the bits fall as the value rises
    last = scores.shape[1] - 1
    return (rising.long() << 32) | torch.arange(last, -1, -1, device=scores.device)
