"""Ranking: the items that methods draw from a teacher's ranking."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distillery.errors import DistilleryError
from distillery.objectives import OBJECTIVES
from distillery.tasks.ranking.interactions import Pairs
from distillery.tasks.ranking.lists import Lists, Ranker
from distillery.tasks.ranking.popularity import popularity_groups

USERS, ITEMS = 25, 120
SMALL: dict[str, dict[str, Any]] = {
    "cd": {"samples": 8, "depth": 40, "scale": 30.0},
    "rd": {"top": 6, "samples": 9, "start_epochs": 2},
    "rrd": {"interesting": 5, "uninteresting": 7, "depth": 20},
    "unkd": {"groups": 3, "draws": 12},
}


@pytest.fixture(scope="module")
def scores() -> torch.Tensor:
    return torch.randn(USERS, ITEMS, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def ranker(scores: torch.Tensor) -> Ranker:
    chosen = torch.rand(USERS, ITEMS, generator=torch.Generator().manual_seed(2)) < torch.linspace(0.5, 0.02, ITEMS)
    return Ranker(Pairs.of(*chosen.nonzero().T, USERS), ITEMS, lambda users: scores[users])


def lists_of(name: str, ranker: Ranker, **options: Any) -> Lists:
    kind = OBJECTIVES[name].get()
    return kind.lists(kind.Config.read(SMALL[name] | options), ranker)


def rank_of(ranker: Ranker, scores: torch.Tensor) -> torch.Tensor:
    """(U, I) place of each item among its user's unseen ones, from 0; ITEMS for seen items."""
    seen = ranker.train.mask(torch.arange(USERS), ITEMS)
    order = scores.masked_fill(seen, -torch.inf).argsort(dim=1, descending=True)
    return order.argsort(dim=1).masked_fill(seen, ITEMS)


@pytest.mark.parametrize("name", SMALL)
def test_draws_are_unseen_items_and_functions_of_seed_and_epoch(name: str, ranker: Ranker) -> None:
    lists, again = lists_of(name, ranker), lists_of(name, ranker)
    for seed, epoch in ((0, 1), (0, 3), (1, 3)):
        items = lists.items(seed, epoch)
        assert items.dtype == torch.int64 and len(items) == USERS
        assert not ranker.train.mask(torch.arange(USERS), ITEMS).gather(1, items).any()
        assert items.equal(again.items(seed, epoch))


def test_unkd_pairs_lie_in_one_group_and_in_the_teachers_order(ranker: Ranker, scores: torch.Tensor) -> None:
    better, worse = lists_of("unkd", ranker).items(0, 1).chunk(2, dim=1)
    group_of = popularity_groups(ranker.train.item, ITEMS, 3)
    assert group_of[better].equal(group_of[worse])
    assert group_of[better].equal(torch.tensor([0, 1, 2]).repeat_interleave(4).expand(USERS, -1))
    assert (scores.gather(1, better) > scores.gather(1, worse)).all()
    assert not lists_of("unkd", ranker).items(0, 2).equal(torch.cat([better, worse], dim=1))
    assert not lists_of("unkd", ranker).items(1, 1).equal(torch.cat([better, worse], dim=1))


def test_one_stratum_is_one_group(ranker: Ranker) -> None:
    control = OBJECTIVES["one_stratum"].load()
    lists = control.lists(control.Config.read({"draws": 12}), ranker)
    better, worse = lists.items(0, 1).chunk(2, dim=1)
    assert lists_of("unkd", ranker, groups=1).lists.equal(lists.lists)
    group_of = popularity_groups(ranker.train.item, ITEMS, 3)
    assert better.shape[1] == 12 and (group_of[better] != group_of[worse]).any()


def test_groups_share_pairs_by_mirrored_popularity(ranker: Ranker) -> None:
    few, many = (lists_of("unkd", ranker, power=power, draws=60).pairs for power in (0.0, 1.0))
    assert few == [20, 20, 20] and many[0] < many[1] < many[2]


def test_half_of_the_released_pairs_compare_an_item_with_itself(ranker: Ranker) -> None:
    better, worse = lists_of("unkd", ranker, released_pairs=True, draws=120).items(0, 1).chunk(2, dim=1)
    assert 0.45 < (better == worse).double().mean() < 0.55


def test_a_user_without_a_pair_in_a_group_compares_an_item_with_itself() -> None:
    """Ten items in two groups of five; user 0 has seen four of the first, user 1 all: no endless loop."""
    first, second = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]
    chosen = [first[:4], first, first, first, first, first, [4], *([second] * 6)]  # six times every item
    user = torch.tensor([u for u, items in enumerate(chosen) for _ in items])
    train = Pairs.of(user, torch.tensor([i for items in chosen for i in items]), len(chosen))
    assert popularity_groups(train.item, 10, 2).tolist() == [0] * 5 + [1] * 5
    ranker = Ranker(train, 10, lambda users: torch.rand(len(users), 10))
    better, worse = lists_of("unkd", ranker, groups=2, draws=8).items(0, 1).chunk(2, dim=1)
    assert better[0, :4].tolist() == worse[0, :4].tolist() == [4] * 4
    assert better[1, :4].equal(worse[1, :4])
    assert (better[0, 4:] != worse[0, 4:]).all()


def test_rd_takes_the_best_and_later_random_ones_too(ranker: Ranker, scores: torch.Tensor) -> None:
    lists, rank = lists_of("rd", ranker), rank_of(ranker, scores)
    assert rank.gather(1, lists.items(0, 2)).equal(torch.arange(6).expand(USERS, -1))
    later = lists.items(0, 3)
    assert later.shape == (USERS, 15) and later[:, :6].equal(lists.items(0, 1))
    assert not later[:, 6:].equal(lists.items(0, 4)[:, 6:])


def test_cd_draws_once_with_the_teachers_scores(ranker: Ranker, scores: torch.Tensor) -> None:
    lists = lists_of("cd", ranker)
    items = lists.items(0, 1)
    assert items.equal(lists.items(5, 9)) and lists.taught is not None
    assert lists.taught.equal(scores.gather(1, items))
    assert rank_of(ranker, scores).gather(1, items).max() < 40
    assert (items.sort(dim=1).values.diff(dim=1) > 0).all()


def test_rrd_draws_from_the_top_in_order_and_from_the_rest(ranker: Ranker, scores: torch.Tensor) -> None:
    rank = rank_of(ranker, scores)
    for redraw in (False, True):
        lists = lists_of("rrd", ranker, redraw=redraw)
        items = lists.items(0, 1)
        assert (rank.gather(1, items[:, :5]).diff(dim=1) > 0).all() and rank.gather(1, items[:, :5]).max() < 20
        assert rank.gather(1, items[:, 5:]).min() >= 20
        assert (items[:, 5:].sort(dim=1).values.diff(dim=1) > 0).all()
        assert items.equal(lists.items(0, 2)) is not redraw


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("rd", {"top": 119}, "RD's `top` takes 119 unseen items"),
        ("cd", {"samples": 119, "depth": 119}, "CD's `samples` takes 119"),
        ("rrd", {"interesting": 119, "depth": 119}, "RRD's `interesting` takes 119"),
        ("rrd", {"uninteresting": 99}, "RRD's `uninteresting`, below `depth`, takes 99"),
    ],
)
def test_more_items_than_there_are_are_refused(name: str, options: dict[str, int], says: str, ranker: Ranker) -> None:
    with pytest.raises(DistilleryError, match=says):
        lists_of(name, ranker, **options)
