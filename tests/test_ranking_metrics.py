"""Ranking: metrics against their definitions, written out user by user."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distillery.tasks.ranking.candidates import candidate_lists
from distillery.tasks.ranking.interactions import Pairs
from distillery.tasks.ranking.metrics import measure, recommend, top_items
from distillery.tasks.ranking.popularity import popularity_groups, popularity_halves

USERS, ITEMS = 30, 50


@pytest.fixture
def data() -> tuple[Pairs, Pairs, torch.Tensor]:
    """Training pairs, held-out pairs of the even users, and scores with many ties."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.rand(USERS, ITEMS, generator=generator) * torch.linspace(1, 0.3, ITEMS) > 0.6
    user, item = drawn.nonzero().T
    held = (torch.rand(len(user), generator=generator) < 0.3) & (user % 2 == 0)
    train, test = Pairs.of(user[~held], item[~held], USERS), Pairs.of(user[held], item[held], USERS)
    return train, test, torch.randint(6, (USERS, ITEMS), generator=generator).float()


def by_hand(scores: list[float], seen: set[int], k: int) -> list[int]:
    return sorted((i for i in range(ITEMS) if i not in seen), key=lambda i: (-scores[i], i))[:k]


def items_of(pairs: Pairs, user: int) -> set[int]:
    return set(pairs.item[pairs.user == user].tolist())


@pytest.mark.parametrize("k", [5, 10, 20])
def test_metrics_are_their_definitions(data: tuple[Pairs, Pairs, torch.Tensor], k: int) -> None:
    train, test, scores = data
    users = test.user.unique()
    group_of = popularity_groups(train.item, ITEMS, 2)
    best = recommend(lambda u: scores[u], users, train, k, rows=4)
    found = measure(best, users, test, group_of)
    recall, ndcg, by_group, concerned, shown = 0.0, 0.0, [0.0, 0.0], [0, 0], [0, 0]
    for row, user in enumerate(users.tolist()):
        want, got = items_of(test, user), by_hand(scores[user].tolist(), items_of(train, user), k)
        assert best[row].tolist() == got
        recall += len(want & set(got)) / len(want)
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(got) if item in want)
        ndcg += gain / sum(1 / math.log2(place + 2) for place in range(min(k, len(want))))
        for g in range(2):
            part = {i for i in want if group_of[i] == g}
            shown[g] += sum(int(group_of[i]) == g for i in got)
            concerned[g] += bool(part)
            by_group[g] += len(part & set(got)) / len(part) if part else 0.0
    assert 0 < recall < len(users)
    assert found.recall == pytest.approx(recall / len(users), rel=1e-12)
    assert found.ndcg == pytest.approx(ndcg / len(users), rel=1e-12)
    assert found.recall_by_group == pytest.approx([r / len(users) for r in by_group], rel=1e-12)
    assert found.recall_by_group_of_concerned == pytest.approx(
        [r / n for r, n in zip(by_group, concerned, strict=True)], rel=1e-12
    )
    assert found.share_by_group == pytest.approx([s / sum(shown) for s in shown], rel=1e-12)


def test_a_perfect_ranking_has_ndcg_one_however_many_items_are_held_out() -> None:
    held = Pairs.of(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 3]), 2)
    found = measure(torch.tensor([[2, 0], [3, 1]]), torch.tensor([0, 1]), held, torch.tensor([0, 0, 1, 1]))
    assert found.ndcg == 1.0 and found.recall == pytest.approx((2 / 3 + 1) / 2)
    assert found.recall_by_group == (0.25, 1.0) and found.recall_by_group_of_concerned == (0.5, 1.0)


def test_equal_scores_rank_by_item() -> None:
    """Saturated scores (the released sigmoid of LightGCN) must not leave the ranking to chance."""
    assert top_items(torch.zeros(3, 1000), 4).tolist() == [[0, 1, 2, 3]] * 3
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0, 2.0]])
    assert top_items(scores, 2).tolist() == [[1, 2]]
    assert top_items(scores, 4).tolist() == [[1, 2, 4, 3]]


def test_what_is_not_a_number_ranks_last() -> None:
    train = Pairs.of(torch.tensor([0]), torch.tensor([3]), 1)
    scores = torch.tensor([[math.nan, 1.0, 2.0, 9.0]])
    assert recommend(lambda u: scores[u], torch.tensor([0]), train, 3).tolist() == [[2, 1, 0]]
    lists, _ = candidate_lists(lambda u: scores[u], train, torch.zeros(4, dtype=torch.int64))
    assert lists.tolist() == [[[2, 1, 0, -1]]]
    scores = torch.tensor([[math.nan, 9.0, -math.inf, 2.0, math.nan]])  # but before items that the user has
    train = Pairs.of(torch.tensor([0, 0]), torch.tensor([0, 1]), 1)
    assert recommend(lambda u: scores[u], torch.tensor([0]), train, 3).tolist() == [[3, 2, 4]]


def test_candidates_are_the_unseen_items_of_a_group_by_score(data: tuple[Pairs, Pairs, torch.Tensor]) -> None:
    train, _, scores = data
    group_of = popularity_groups(train.item, ITEMS, 3)
    group_of[7] = -1
    lists, lengths = candidate_lists(lambda u: scores[u], train, group_of, depth=6, rows=7)
    for user in range(USERS):
        ranked = by_hand(scores[user].tolist(), items_of(train, user), ITEMS)
        for g in range(int(group_of.max()) + 1):
            want = [i for i in ranked if group_of[i] == g][:6]
            assert lengths[user, g] == len(want)
            assert lists[user, g].tolist() == want + [-1] * (lists.shape[2] - len(want))


def groups(popularity: list[int], wanted: int) -> list[int]:
    item = torch.arange(len(popularity)).repeat_interleave(torch.tensor(popularity))
    return popularity_groups(item, len(popularity), wanted).tolist()


@pytest.mark.parametrize(
    ("popularity", "want"),
    [
        ([4, 4, 3], [0, 1, 1]),  # three groups
        ([8, 1, 1], [0, 1, 1]),  # one
        ([1, 3, 0, 2, 2], [1, 0, -1, 1, 1]),
        ([1, 3, 0, 2, 2, 1, 1], [1, 0, -1, 0, 1, 1, 1]),
    ],
)
def test_halves_are_two_whatever_the_popularities(popularity: list[int], want: list[int]) -> None:
    item = torch.arange(len(popularity)).repeat_interleave(torch.tensor(popularity))
    assert popularity_halves(item, len(popularity)).tolist() == want


def test_halves_are_the_two_groups_where_there_are_two() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        item = torch.from_numpy(rng.geometric(0.02, 400) % 90)
        if (group_of := popularity_groups(item, 90, 2)).max() == 1:
            assert torch.equal(popularity_halves(item, 90), group_of)


def test_groups_hold_equal_parts_of_the_pairs() -> None:
    """By hand: an item that would carry a group over its part opens the next one."""
    assert groups([*range(20, 0, -1), 0], 2) == [0] * 6 + [1] * 14 + [-1]  # 20 + 19 + 18 + 17 + 16 + 15 is half of 210
    assert groups([1, 2, 3, 4], 2) == [1, 1, 1, 0]  # 4 + 3 would be over 5
    assert groups([5, 5, 5, 5], 1) == [0, 0, 0, 0]
    assert groups([9, 1, 1, 1], 3) == [0, 1, 1, 1]  # 9 alone is over 4; what is left is more than half of that
    assert groups([9, 1, 0, 0], 3) == [0, 0, -1, -1]  # and here is not: it joins the group before
