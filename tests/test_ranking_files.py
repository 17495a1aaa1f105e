"""Ranking: files of pairs, and how they are split."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from distillery.data import open_source
from distillery.errors import DistilleryError
from distillery.tasks.ranking.files import filtered, read_ratings, read_users, split


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_users_are_numbered_by_line(tmp_path: Path) -> None:
    user, item = read_users(written(tmp_path / "users.dat", "2 5 7\n0\n3 1 5 5\n"))
    assert user.tolist() == [0, 0, 2, 2, 2] and item.tolist() == [5, 7, 1, 5, 5]


@pytest.mark.parametrize(
    "text",
    [
        "1::1193::5::978300760\n1::661::0::978302109\n6::661::3::9783\n",
        "1\t1193\t5\t978300760\n1\t661\t0\t978302109\n6\t661\t3\t9783\n",
        "userId,movieId,rating,timestamp\n1,1193,5.0,978300760\n1,661,0.0,978302109\n6,661,0.5,9783\n",
        "user_id:token item_id:token rating:float\n1 1193 5\n1 661 0\n6 661 3\n",
        "User ID,Movie ID,Movie rating,Date rated\n1,1193,5,7\n1,661,0,7\n6,661,3,7\n",
        "a,b,c\n1,1193,5\n1,661,0\n6,661,3\n",  # words that say nothing
        "\ufeff1,1193,5\n1,661,0\n6,661,3\n",  # a byte order mark is no heading
    ],
)
def test_ratings_above_zero_count(tmp_path: Path, text: str) -> None:
    user, item = read_ratings(written(tmp_path / "ratings.dat", text))
    assert user.tolist() == [1, 6] and item.tolist() == [1193, 661]


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (read_users, "2 5\n", "line 1: announces 2 items, but has 1"),
        (read_users, "1 5\n1 x\n", "line 2: expected how many items and which"),
        (read_users, "1 5\n\n", "line 2: expected how many items and which"),
        (read_ratings, "1,2,3\n1,two,3\n", "line 2: expected user, item and rating"),
        (
            read_ratings,
            "2 10 11\n3 10 12 13\n",
            r"each line begins with how many numbers follow: say `data\.format: users`",
        ),
        (read_ratings, "1,2\n", "line 1: expected user, item and rating"),
        (read_ratings, "x1,10,5\n2,11,4\n", "line 1: expected user, item and rating"),
        (read_ratings, '"a","10","5"\n2,11,4\n', "line 1: expected user, item and rating"),
        (read_ratings, "1,10,5\n2,11,nan\n", "line 2: expected user, item and rating"),
        (read_ratings, "movieId,userId,rating\n1,2,3\n", "line 1: the heading .* has the user in column 2, not 1"),
        (read_ratings, '"user_id";"rating";"book"\n1;2;3\n', "has the item in column 3, not 2"),
        (read_ratings, "user item time rating\n1 2 3 4\n", "has the rating in column 4, not 3"),
        (read_ratings, f"1,{2**63},3\n", f"the number {2**63} has more than 64 bits"),
        (read_users, f"1 {2**63}\n", f"the number {2**63} has more than 64 bits"),
        (read_ratings, "1,10,inf\n", "line 1: expected user, item and rating"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, read, text: str, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DistilleryError, match=says):
        read(written(tmp_path / "file", text))


def test_a_missing_file_or_one_that_is_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match=r"data\.path"):
        read_users(tmp_path / "nowhere.dat")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DistilleryError, match="is no text"):
        read_ratings(tmp_path / "binary")


def test_users_of_few_items_and_repetitions_go() -> None:
    user = np.array([7, 7, 7, 3, 3, 9, 9, 9])
    item = np.array([40, 10, 10, 10, 20, 20, 10, 30])
    user, item = filtered(user, item, 3)
    assert user.tolist() == [0, 0, 0] and item.tolist() == [0, 1, 2]
    with pytest.raises(DistilleryError, match=r"lower `data\.least`"):
        filtered(user, item, 4)


def some_pairs() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return filtered(np.repeat(np.arange(100), 30), random.integers(80, size=3000), 5)


def test_every_user_has_a_share_held_out_and_is_in_one_split() -> None:
    user, item = some_pairs()
    parts = split(user, item, 0.1, 0.2, seed=1)
    joined = {
        (int(u), int(i))
        for n in ("train", "val", "test")
        for u, i in zip(parts[f"{n}_user"], parts[f"{n}_item"], strict=True)
    }
    assert joined == set(zip(user.tolist(), item.tolist(), strict=True))
    assert sum(len(parts[f"{n}_user"]) for n in ("train", "val", "test")) == len(user)
    held = np.bincount(np.concatenate([parts["val_user"], parts["test_user"]]), minlength=100)
    assert held.tolist() == [math.ceil(n * 0.1) for n in np.bincount(user)]
    validating, tested = set(parts["val_user"].tolist()), set(parts["test_user"].tolist())
    assert len(validating) == 20 and len(tested) == 80 and not validating & tested


def test_a_split_is_a_function_of_its_seed() -> None:
    user, item = some_pairs()
    first, again, other = (split(user, item, 0.2, 0.5, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["test_item"], other["test_item"])


def test_a_user_without_training_items_is_refused() -> None:
    user, item = np.array([0, 0, 1, 1, 1, 1, 1]), np.array([0, 1, 0, 1, 2, 3, 4])
    with pytest.raises(DistilleryError, match="none to train on"):
        split(user, item, 0.6, 0.2, seed=0)


def test_every_user_keeps_ten_items_to_recommend_and_some_users_test(tmp_path: Path) -> None:
    few = [list(range(10 + user)) for user in range(10)]
    for every, trains in ((few, 15), ([*few, list(range(40))], 32)):  # 19 items; 40, nearly all of one user's
        path = written(tmp_path / "users.dat", "".join(f"{len(u)} {' '.join(map(str, u))}\n" for u in every))
        options = {"path": str(path), "format": "users", "least": 5}
        with pytest.raises(DistilleryError, match=f"users.dat: a user trains on {trains} of all .* leaves fewer than"):
            open_source("interactions", options).load()
    assert open_source("interactions", options | {"test_fraction": 0.25}).load().items == 40
    for source in ("interactions", "citeulike"):
        with pytest.raises(DistilleryError, match="val_users: less than 1"):
            open_source(source, {"path": "users.dat", "val_users": 1.0})
