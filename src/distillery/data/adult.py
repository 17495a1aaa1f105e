"""Adult, also called Census Income (Kohavi, KDD 1996; UCI data set 2): who earns more than 50,000 dollars a year.

32,561 training and 16,281 test rows, as they were released: nobody is left out, "?" is a category like others. Nothing
is downloaded: `path` names adult.zip of https://archive.ics.uci.edu/static/public/2/adult.zip, or a folder with
adult.data and adult.test. Both are verified by their hashes.

What becomes of the columns is a declared design: five quantities (age, years of education, capital gain and loss, hours
a week) in one byte each, gain and loss by their logarithm, since they reach 99,999; every other column as flags, one
for each of its categories. Left out: fnlwgt, which is a weight of the census and no fact about the person, and
education, which is the years of education in words.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distillery.data.arrays import Arrays, Shape, Source
from distillery.data.rows import arrays_of_rows
from distillery.errors import DistilleryError

SHA256 = {
    "train": ("adult.data", "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
    "test": ("adult.test", "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
}
COUNTS = {"train": 32_561, "test": 16_281}
QUANTITIES = {"age": 0, "education-num": 4, "capital-gain": 10, "capital-loss": 11, "hours-per-week": 12}
CATEGORIES = {  # column and how many categories it has
    "workclass": (1, 9),
    "marital-status": (5, 7),
    "occupation": (6, 15),
    "relationship": (7, 6),
    "race": (8, 5),
    "sex": (9, 2),
    "native-country": (13, 42),
}
_LARGEST = 99_999  # capital gain
NAMES = ["<=50K", ">50K"]


class Adult(Source):
    """Rows of 91 features, two classes; class 1, more than 50,000 dollars, is the favourable one."""

    grouped = True

    class Config(Source.Config):
        path: str
        """adult.zip, or a folder with adult.data and adult.test."""
        group: Literal["sex", "race"] = "sex"
        """What the groups differ in, between which gaps are measured."""
        blind: bool = False
        """Leave the flags of the group out of the features. (Others tell it too: "husband" and "wife".)"""

    config: Config

    def selection(self) -> dict[str, Any]:
        return {"group": self.config.group, "blind": self.config.blind}

    def files(self) -> list[Path]:
        return [Path(self.config.path).expanduser()]

    def shape(self) -> Shape:
        if not self.files()[0].exists():
            raise DistilleryError(f"there is no {self.files()[0]}: name adult.zip in `data.path`")
        return Shape(self._features, 1, 1, 2, COUNTS["train"], COUNTS["test"], scale=1.0)

    @property
    def _used(self) -> dict[str, tuple[int, int]]:
        return {n: of for n, of in CATEGORIES.items() if not (self.config.blind and n == self.config.group)}

    @property
    def _features(self) -> int:
        return len(QUANTITIES) + sum(count for _, count in self._used.values())

    def load(self) -> Arrays:
        rows = {split: _rows(self.files()[0], *SHA256[split]) for split in SHA256}
        names = {name: sorted({row[column] for row in rows["train"]}) for name, (column, _) in CATEGORIES.items()}
        column = CATEGORIES[self.config.group][0]
        groups = names[self.config.group]
        return arrays_of_rows(
            {split: (self._encoded(found, names), _labels(found)) for split, found in rows.items()},
            NAMES,
            np.arange(self._features) < len(QUANTITIES),
            self.selection(),
            {split: np.array([groups.index(row[column]) for row in found]) for split, found in rows.items()},
            (self.config.group, groups),
        )

    def _encoded(self, rows: list[list[str]], names: dict[str, list[str]]) -> np.ndarray:
        """(N, F) uint8."""
        parts = [
            np.array([_byte(name, int(row[column])) for row in rows], dtype=np.uint8)[:, None]
            for name, column in QUANTITIES.items()
        ]
        for name, (column, _) in self._used.items():
            place = {category: i for i, category in enumerate(names[name])}
            parts.append(np.eye(len(place), dtype=np.uint8)[[place[row[column]] for row in rows]])
        return np.concatenate(parts, axis=1)


def _byte(name: str, value: int) -> int:
    """A quantity in one byte: as it is, or by its logarithm from 0 to the largest gain."""
    if name.startswith("capital"):
        return round(255 * math.log1p(value) / math.log1p(_LARGEST))
    return value


def _labels(rows: list[list[str]]) -> np.ndarray:
    return np.array([NAMES.index(row[14].rstrip(".")) for row in rows])  # the test file ends its labels with a dot


def _rows(path: Path, name: str, sha256: str) -> list[list[str]]:
    """The rows of one of the two files, 15 columns each. Raises DistilleryError if it is missing or another one."""
    try:
        if path.is_dir():
            raw = (path / name).read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                raw = archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DistilleryError(f"cannot read {name} of {path} ({said}): name adult.zip in `data.path`") from None
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise DistilleryError(f"{name} of {path} is not the released one (sha256 {sha256[:12]}...): fetch it again")
    lines = csv.reader(io.StringIO(raw.decode("ascii")), skipinitialspace=True)
    return [line for line in lines if len(line) == 15]
