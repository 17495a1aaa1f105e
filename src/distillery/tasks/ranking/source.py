"""Recommendation data from files of the user's: CiteULike, MovieLens and whatever has their format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distillery.config import Count, Fraction
from distillery.data.arrays import Source
from distillery.errors import DistilleryError
from distillery.tasks.ranking.files import BEST, filtered, read_ratings, read_users, split


@dataclass(frozen=True, slots=True)
class PairArrays:
    """Pairs in canonical order, each split sorted by user, then by item.

    Attributes:
        tensors: train_user, train_item, val_user, val_item, test_user, test_item, int32.
        selection: the options that decided the content.
    """

    tensors: dict[str, NDArray[np.int32]]
    users: int
    items: int
    selection: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """What the record of the data says beside the hashes."""
        counts = {name: len(self.tensors[f"{name}_user"]) for name in ("train", "val", "test")}
        return {"selection": self.selection, "counts": counts | {"users": self.users, "items": self.items}}


class Interactions(Source):
    """Pairs from one file, in one of the formats of `distillery.tasks.ranking.files`.

    Users of fewer than `least` items go; of each other one a share of the items, rounded up, is held out at random.
    Some users' held-out items validate, those of the others test. All users' other items are trained on.
    """

    task = "ranking"

    class Config(Source.Config):
        path: str
        """The file."""
        format: Literal["users", "ratings"] = "ratings"
        """users: a line per user; ratings: a line per pair."""
        least: Count = 20
        """Items of a user who stays."""
        test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
        """Of each user's items."""
        val_users: Fraction = 0.5
        """Of the users: whose held-out items validate."""
        split: Annotated[int, Field(ge=0)] = 0
        """Seed of what is held out and who validates."""

    config: Config

    def selection(self) -> dict[str, Any]:
        return {key: value for key, value in self.config.effective().items() if key != "path"}

    def files(self) -> list[Path]:
        return [Path(self.config.path).expanduser()]

    def load(self) -> PairArrays:  # type: ignore[override]
        read = read_users if self.config.format == "users" else read_ratings
        user, item = filtered(*read(self.files()[0]), self.config.least)
        parts = split(user, item, self.config.test_fraction, self.config.val_users, self.config.split)
        users, items = int(user.max()) + 1, int(item.max()) + 1
        seen = int(np.bincount(parts["train_user"]).max())
        if items - seen < BEST:
            raise DistilleryError(
                f"{self.files()[0]}: a user trains on {seen} of all {items} items, which leaves fewer than the {BEST} "
                "that are recommended: take data of more items, or raise `data.test_fraction`"
            )
        arrays = {name: part.astype(np.int32) for name, part in parts.items()}
        return PairArrays(arrays, users, items, self.selection())


class CiteULike(Interactions):
    """CiteULike-t, which Wang, Chen and Li collected (IJCAI 2013): `users.dat`, 770,649 bytes.

    A line per user: how many articles follow, then their numbers. As UnKD takes it: 5,219 users of at least 5 articles,
    25,181 articles, 125,580 pairs; a tenth of each user's is held out, and a fifth of the users validate. Its paper's
    split is not published: this one is another draw by the same rule. (Its released script says a fifth instead of a
    tenth in one place; with a tenth the paper's numbers of teacher and student come out.)
    """

    sha256: ClassVar[str] = "02d5d429b2c0362e0ed79f6ef204666b4092563d21493abf4dfb521e8a7078bf"

    class Config(Interactions.Config):
        format: Literal["users", "ratings"] = "users"
        least: Count = 5
        test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
        val_users: Fraction = 0.2

    config: Config

    def load(self) -> PairArrays:  # type: ignore[override]
        (path,) = self.files()
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise DistilleryError(
                f"{path} is not CiteULike-t's users.dat (sha256 {self.sha256[:12]}...): take that file, or say "
                "`source: interactions` for your own"
            )
        return super().load()
