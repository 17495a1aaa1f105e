"""Ranking: random draws are exact, and there is nothing that could loop for ever or that ties could spoil."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from distillery.tasks.ranking.interactions import Pairs
from distillery.tasks.ranking.sampling import Unseen, distinct, distinct_ranks, rank_pairs

DRAWS = 100_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs_of(*items: list[int]) -> Pairs:
    """User 0 chose the first list, user 1 the second, ..."""
    user = [u for u, chosen in enumerate(items) for _ in chosen]
    return Pairs.of(torch.tensor(user), torch.tensor([i for chosen in items for i in chosen]), len(items))


def test_pairs_are_sorted_and_know_their_items() -> None:
    pairs = Pairs.of(torch.tensor([2, 0, 2, 0]), torch.tensor([4, 3, 1, 0]), 4)
    assert pairs.user.tolist() == [0, 0, 2, 2] and pairs.item.tolist() == [0, 3, 1, 4]
    assert pairs.degree.tolist() == [2, 0, 2, 0]
    assert pairs.mask(torch.tensor([2, 1, 0]), 5).nonzero().tolist() == [[0, 1], [0, 4], [2, 0], [2, 3]]
    row, item = pairs.of_users(torch.tensor([2, 1, 0]))
    assert row.tolist() == [0, 0, 2, 2] and item.tolist() == [1, 4, 0, 3]
    user, item = torch.tensor([[0, 3], [0, 4], [1, 0], [2, 4], [3, 9]]).T
    assert pairs.has(user, item).tolist() == [True, False, False, True, False]


def test_unseen_items_are_all_the_others_in_order() -> None:
    chosen = [[0, 1, 4], [], [5], [0, 1, 2, 3, 4]]
    unseen = Unseen(pairs_of(*chosen), 6)
    for user, seen in enumerate(chosen):
        rest = [i for i in range(6) if i not in seen]
        assert unseen.count[user] == len(rest)
        ranks = torch.arange(len(rest))
        assert unseen.item(torch.full_like(ranks, user), ranks).tolist() == rest


def test_unseen_items_are_drawn_uniformly() -> None:
    unseen = Unseen(pairs_of([1, 3], [0, 1, 2, 4]), 6)
    drawn = unseen.draw(torch.tensor([0, 1]).repeat_interleave(20_000), generator())
    counts = torch.bincount(drawn[:20_000], minlength=6)
    assert counts[[1, 3]].sum() == 0
    assert chisquare(counts[[0, 2, 4, 5]].numpy()).pvalue > 0.01
    counts = torch.bincount(drawn[20_000:], minlength=6)
    assert counts[[0, 1, 2, 4]].sum() == 0 and chisquare(counts[[3, 5]].numpy()).pvalue > 0.01


def two_ranks(length: int, scale: float) -> dict[tuple[int, int], float]:
    """Probability of every pair of different ranks, the better first, by its definition."""
    p = [math.exp(-(r + 1) / scale) for r in range(length)]
    weight = {(a, b): p[a] * p[b] for a, b in combinations(range(length), 2)}
    return {pair: w / sum(weight.values()) for pair, w in weight.items()}


@pytest.mark.parametrize(("length", "scale"), [(2, 20.0), (3, 0.5), (5, 20.0), (12, 3.0), (40, 6.0)])
def test_rank_pairs_have_their_distribution(length: int, scale: float) -> None:
    better, worse = rank_pairs(torch.full((DRAWS,), length), scale, generator(length))
    assert (better >= 0).all() and (better < worse).all() and (worse < length).all()
    found = torch.bincount(better * length + worse, minlength=length**2)
    want = torch.zeros(length**2, dtype=torch.float64)
    for (a, b), probability in two_ranks(length, scale).items():
        want[a * length + b] = DRAWS * probability
    often = want >= 5  # what comes more rarely counts as one
    counts = [*found[often].tolist(), found[~often].sum().item()]
    expected = [*want[often].tolist(), want[~often].sum().item()]
    if expected[-1] == 0:
        assert counts.pop() == expected.pop()
    if len(counts) > 1:
        assert chisquare(counts, expected).pvalue > 0.01


def test_rank_pairs_of_mixed_and_long_lists() -> None:
    length = torch.tensor([1000, 2, 7, 100_000, 3]).repeat(20_000, 1)
    better, worse = rank_pairs(length, 20.0, generator())
    assert (better < worse).all() and (worse < length).all() and (better >= 0).all()
    q = math.exp(-1 / 20)  # in a long list P(better = a) ~ q^2a, and the distance is geometric
    mean = sum(a * q ** (2 * a) for a in range(1000)) / sum(q ** (2 * a) for a in range(1000))
    assert better[:, 0].double().mean().item() == pytest.approx(mean, rel=0.03)
    assert (worse - better)[:, 3].double().mean().item() == pytest.approx(1 / (1 - q), rel=0.03)


def test_lists_of_less_than_two_end_and_pair_nothing() -> None:
    """The released code draws for ever where a user has one candidate in a group."""
    better, worse = rank_pairs(torch.tensor([0, 1, 1, 2]), 20.0, generator())
    assert better.tolist() == [0, 0, 0, 0] and worse.tolist() == [0, 0, 0, 1]


def test_distinct_ranks_follow_their_weights_one_after_the_other() -> None:
    weight = [4.0, 2.0, 1.0, 1.0, 100.0]
    length = torch.full((40_000,), 4)
    drawn = distinct_ranks(torch.tensor(weight), length, 2, generator())
    want = {(a, b): weight[a] / 8 * weight[b] / (8 - weight[a]) for a, b in permutations(range(4), 2)}
    pairs, counts = np.unique(drawn.numpy(), axis=0, return_counts=True)
    assert [tuple(p) for p in pairs.tolist()] == sorted(want)
    assert chisquare(counts, [40_000 * want[tuple(p)] for p in pairs.tolist()]).pvalue > 0.01


def test_distinct_numbers_are_a_uniform_subset() -> None:
    drawn = distinct(torch.tensor([5, 3]).repeat_interleave(30_000), 3, generator())
    assert (drawn.sort(dim=1).values.diff(dim=1) > 0).all()
    sets, counts = np.unique(drawn[:30_000].sort(dim=1).values.numpy(), axis=0, return_counts=True)
    assert len(sets) == 10 and chisquare(counts).pvalue > 0.01
    assert drawn[30_000:].sort(dim=1).values.unique(dim=0).tolist() == [[0, 1, 2]]


def test_draws_are_functions_of_the_generator() -> None:
    length = torch.full((50, 3), 9)
    first, again, other = (torch.stack(rank_pairs(length, 5.0, generator(seed))) for seed in (4, 4, 5))
    assert first.equal(again) and not first.equal(other)
