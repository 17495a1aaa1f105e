"""Groups of items of like popularity: the strata of UnKD, and of its metrics.

Chen et al., "Unbiased knowledge distillation for recommendation" (arXiv:2211.14729, WSDM 2023), section 4.1, and its
released code (chengang95/UnKD).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNSEEN = -1  # the group of items without a training pair


def popularity_groups(item: Tensor, items: int, groups: int) -> Tensor:
    """Cut the items into groups that hold about the same number of training pairs each.

    Args:
        item: (N,) items of all training pairs; which comes first breaks ties between equally popular items.
        items: how many there are.
        groups: wanted. A very popular item makes a group of its own, and a remainder of more than half a group is one
            too, so that there can be more or fewer.

    Returns:
        (items,) int64: 0 for the most popular group, `UNSEEN` for items without a training pair.
    """
    target = len(item) / groups
    group_of = np.full(items, UNSEEN, dtype=np.int64)
    group, members, total = 0, list[int](), 0
    for number, pairs in zip(*_by_popularity(item), strict=True):
        members.append(number)
        total += int(pairs)
        if total > target:
            # The item that crosses the line opens the next group, unless it is alone.
            crossing = members[:] if len(members) == 1 else members[:-1]
            group_of[crossing] = group
            group += 1
            members, total = ([], 0) if len(members) == 1 else (members[-1:], int(pairs))
    if members:
        group_of[members] = group if total > target / 2 or group == 0 else group - 1
    return torch.from_numpy(group_of).to(item.device)


def popularity_halves(item: Tensor, items: int) -> Tensor:
    """Cut the items in two, where the more popular ones hold half of the training pairs at most, but one item at least.

    As `popularity_groups` cuts, except that these are two whatever the popularities are. Arguments and result as there.
    """
    found, count = _by_popularity(item)
    half_of = np.full(items, UNSEEN, dtype=np.int64)
    half_of[found] = count.cumsum() > len(item) / 2
    half_of[found[:1]] = 0
    return torch.from_numpy(half_of).to(item.device)


def _by_popularity(item: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The items of all training pairs, the most popular first and of equal ones the first seen, and their pairs."""
    found, first, count = np.unique(item.cpu().numpy(), return_index=True, return_counts=True)
    order = np.lexsort((first, -count))
    return found[order], count[order]


def mirrored_popularity(item: Tensor, group_of: Tensor) -> list[float]:
    """Each group's weight before `shares`: its mean popularity, mirrored (largest + smallest - own), as released.

    The weights sum to 1, are rounded to two digits, and none is below 0.1. `item`: (N,) items of all training pairs.
    """
    count = torch.bincount(item, minlength=len(group_of)).double()
    mean = [count[group_of == g].mean().item() for g in range(int(group_of.max()) + 1)]
    mirrored = [max(mean) + min(mean) - m for m in mean]
    return [max(round(m / sum(mirrored), 2), 0.1) for m in mirrored]


def shares(item: Tensor, group_of: Tensor, power: float) -> list[float]:
    """The share of a user's pairs that each group gets: mirrored popularity to a power, normalised; 0: equal shares."""
    weights = [w**power for w in mirrored_popularity(item, group_of)]
    return [w / sum(weights) for w in weights]


def pairs_per_group(shares: list[float], pairs: int) -> list[int]:
    """Split `pairs` by `shares`, rounded half to even; what is missing goes to the first groups.

    As in the released code, roundings can add up to more than `pairs`: 30 pairs in 4 equal shares are 8 each.
    """
    split = [round(share * pairs) for share in shares]
    missing = pairs - sum(split)
    return [n + (g < missing) for g, n in enumerate(split)]
