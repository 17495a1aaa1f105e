"""Reading who chose what from files, and splitting it. numpy only.

Two formats of text. "users": one line per user, the first number is how many items follow (CiteULike). "ratings": one
line per pair, user, item, rating and whatever follows, separated by "::" (MovieLens-1M), a tab (MovieLens-100K), commas
or blanks; a rating above 0 counts as chosen, and a first line of words is a heading, which may name the columns, in
this order.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillery.errors import DistilleryError

Ints = NDArray[np.int64]
BEST = 10  # items recommended to a user, which the training must leave unseen
_BETWEEN = re.compile(r"::|[\t,;]|\s+")
_SEPARATOR = re.compile(r"::|[\t,;]")  # in a heading a blank may be part of a name
_WORDS = {  # what a column of a heading is called: the first that fits
    "rating": re.compile("rating|score|stars"),
    "user": re.compile("user|reader|customer|member|uid"),
    "item": re.compile("item|movie|film|book|isbn|product|asin|article|paper|song|track|album|artist|game|anime|joke"),
}


def read_users(path: Path) -> tuple[Ints, Ints]:
    """(user, item) of a file in the format "users"; users are numbered by line. Raises DistilleryError."""
    user, item = list[int](), list[int]()
    for number, line in enumerate(_lines(path)):
        try:
            count, *items = map(int, line.split())
        except ValueError:
            raise DistilleryError(f"{path}, line {number + 1}: expected how many items and which, in numbers") from None
        if count != len(items):
            raise DistilleryError(f"{path}, line {number + 1}: announces {count} items, but has {len(items)}")
        user += [number] * count
        item += items
    return _ints(user, path), _ints(item, path)


def read_ratings(path: Path) -> tuple[Ints, Ints]:
    """(user, item) of a file in the format "ratings", where the rating is above 0.

    Raises DistilleryError, also for a file each of whose lines begins with how many numbers follow.
    """
    user, item, announced = list[int](), list[int](), True
    for number, line in enumerate(_lines(path)):
        fields = _BETWEEN.split(line.strip())
        try:
            u, i, rating = int(fields[0]), int(fields[1]), float(fields[2])
            if not math.isfinite(rating):
                raise ValueError
        except (ValueError, IndexError):
            if number == 0 and not any(map(_is_number, fields)):
                _see_heading(line, path)
                continue
            raise DistilleryError(
                f"{path}, line {number + 1}: expected user, item and rating as numbers, not {line.strip()[:40]!r}"
            ) from None
        announced = announced and u == len(fields) - 1
        if rating > 0:
            user.append(u)
            item.append(i)
    if announced and user:
        raise DistilleryError(f"{path}: each line begins with how many numbers follow: say `data.format: users`")
    return _ints(user, path), _ints(item, path)


def _ints(numbers: list[int], path: Path) -> Ints:
    try:
        return np.array(numbers, dtype=np.int64)
    except OverflowError:
        large = max(numbers, key=abs)
        raise DistilleryError(
            f"{path}: the number {large} has more than 64 bits: number users and items anew"
        ) from None


def _see_heading(line: str, path: Path) -> None:
    """Raise DistilleryError for a heading whose words say that the columns are in another order."""
    line = line.strip()
    columns = [c.lower() for c in (_SEPARATOR.split(line) if _SEPARATOR.search(line) else line.split())]
    kinds = [next((kind for kind, words in _WORDS.items() if words.search(column)), "") for column in columns]
    for place, kind in enumerate(("user", "item", "rating")):
        if kind in kinds and kinds[place : place + 1] != [kind]:
            raise DistilleryError(
                f"{path}, line 1: the heading {line[:60]!r} has the {kind} in column {kinds.index(kind) + 1}, not "
                f"{place + 1}: bring the columns into the order user, item, rating"
            )


def _is_number(field: str) -> bool:
    try:
        float(field.strip('"'))
    except ValueError:
        return False
    return True


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()  # a byte order mark is no part of the first number
    except OSError as error:
        raise DistilleryError(f"{path} cannot be read ({error.strerror}): name the file in `data.path`") from None
    except UnicodeDecodeError:
        raise DistilleryError(f"{path} is no text: name a file of users and items in `data.path`") from None


def filtered(user: Ints, item: Ints, least: int) -> tuple[Ints, Ints]:
    """Drop repeated pairs, then users of fewer than `least` items; number users and items from 0 in their own order.

    The result is sorted by user, then by item. Raises DistilleryError if nothing is left.
    """
    pairs = np.unique(np.stack([user, item], axis=1), axis=0)
    known, degree = np.unique(pairs[:, 0], return_counts=True)
    pairs = pairs[np.isin(pairs[:, 0], known[degree >= least])]
    if not len(pairs):
        raise DistilleryError(f"no user has {least} items or more: lower `data.least`")
    return np.unique(pairs[:, 0], return_inverse=True)[1], np.unique(pairs[:, 1], return_inverse=True)[1]


def split(user: Ints, item: Ints, test_fraction: float, val_users: float, seed: int) -> dict[str, Ints]:
    """Hold out a share of each user's items, rounded up; some users validate with theirs, the others test.

    Args:
        user, item: (N,) numbered from 0, sorted by user (`filtered`).
        test_fraction: of each user's items, held out at random.
        val_users: share of the users, rounded down, whose held-out items validate.
        seed: of both choices; the same one gives the same split everywhere.

    Returns:
        train_user, train_item, val_user, val_item, test_user, test_item, each sorted by user, then by item.

    Raises DistilleryError if a user would have nothing left to train on.
    """
    degree = np.bincount(user)
    held_count = np.ceil(degree * test_fraction).astype(np.int64)
    if (short := np.flatnonzero(held_count >= degree)).size:
        few = int(degree[short[0]])
        raise DistilleryError(
            f"data.test_fraction {test_fraction} leaves a user of {few} item(s) none to train on: lower it, or raise "
            "`data.least`"
        )
    random = np.random.Generator(np.random.PCG64(seed))
    shuffled = np.lexsort((random.random(len(user)), user))
    place = np.arange(len(user)) - (np.cumsum(degree) - degree)[user]
    held = np.zeros(len(user), dtype=bool)
    held[shuffled] = place < held_count[user]
    validates = np.zeros(len(degree), dtype=bool)
    validates[np.argsort(random.random(len(degree)), kind="stable")[: int(len(degree) * val_users)]] = True
    parts = {"train": ~held, "val": held & validates[user], "test": held & ~validates[user]}
    return {f"{name}_{what}": of[rows] for name, rows in parts.items() for what, of in (("user", user), ("item", item))}
