"""Texts with sets of labels, from a file of the user's: Bibtex, Delicious and whatever has their format.

A row has binary features (words that occur) and any number of labels. Two formats:

* `.npz`, as scipy's compressed rows: `shape` (rows, features, labels); `x_indptr`, `x_indices` of the features that
  occur, `y_indptr`, `y_indices` of the labels.
* text as the Extreme Classification Repository has it, or svmlight's with several labels: a line per row,
  "3,17 5:1 80:1", labels, then features; a first line "rows features labels" is a heading. Features count from 0; a
  value must be 0 or 1.

Rows without a label are left out. Where the released sets differ in how they are split, this is a declared design: a
share of the rows is tested, drawn by a seed.
"""

from __future__ import annotations

import codecs
import io
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distillery.data.arrays import Arrays, Shape, Source
from distillery.data.pixels import LARGEST, as_labels
from distillery.errors import DistilleryError

Flags = NDArray[np.uint8]


class Multilabel(Source):
    """Rows of features with sets of labels, for `task: retrieval`."""

    class Config(Source.Config):
        path: str
        """The file."""
        test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
        """Of the rows."""
        split: Annotated[int, Field(ge=0)] = 0
        """Seed of which rows are tested."""

    config: Config

    def selection(self) -> dict[str, Any]:
        return {"test_fraction": self.config.test_fraction, "split": self.config.split}

    def files(self) -> list[Path]:
        return [Path(self.config.path).expanduser()]

    def shape(self) -> Shape:
        rows, features, labels = _size(self.files()[0])
        test = self._tested(rows)
        return Shape(features, 1, 1, labels, rows - test, test, scale=1.0)

    def _tested(self, rows: int) -> int:
        """How many of the rows are tested. Raises DistilleryError if none are, or none are trained on."""
        tested = round(rows * self.config.test_fraction)
        if tested in (0, rows):
            raise DistilleryError(
                f"data.test_fraction {self.config.test_fraction:g} leaves {self.files()[0]} without rows to "
                f"{'train on' if tested else 'test'}: {'lower' if tested else 'raise'} it"
            )
        return tested

    def load(self) -> Arrays:
        features, labels = read(self.files()[0])
        some = labels.any(axis=1)
        features, labels = features[some], labels[some]
        random = np.random.Generator(np.random.PCG64(self.config.split))
        tested = np.zeros(len(features), dtype=bool)
        tested[random.permutation(len(features))[: self._tested(len(features))]] = True
        names = [str(i) for i in range(labels.shape[1])]
        tensors: dict[str, Any] = {}
        for name, of in (("train", ~tested), ("test", tested)):
            first = labels[of].argmax(axis=1)
            order = np.argsort(first, kind="stable")
            tensors[f"{name}_images"] = np.ascontiguousarray(features[of][order])[:, None, None, :]
            tensors[f"{name}_labels"] = as_labels(first[order], len(names))  # the first of each row's
            tensors[f"{name}_sets"] = np.ascontiguousarray(labels[of][order])
        width = features.shape[1]
        return Arrays(tensors, names, 1.0, [0.0] * width, [1.0] * width, self.selection())


def read(path: Path) -> tuple[Flags, Flags]:
    """(N, F) features and (N, L) labels of a file, as flags. Raises DistilleryError."""
    try:
        return _read_npz(path) if path.suffix == ".npz" else _read_text(path)
    except FileNotFoundError:
        raise DistilleryError(f"there is no file {path}: name it in `data.path`") from None
    except (OSError, LookupError, TypeError, ValueError, OverflowError, MemoryError, zipfile.BadZipFile) as error:
        said = " ".join(str(error).split())[:100] or type(error).__name__
        raise DistilleryError(f"cannot read {path} ({said}): its format is in docs/related.md") from None


def _size(path: Path) -> tuple[int, int, int]:
    features, labels = read(path)
    return int(labels.any(axis=1).sum()), features.shape[1], labels.shape[1]


def _read_npz(path: Path) -> tuple[Flags, Flags]:
    with np.load(path, allow_pickle=False) as content:
        rows, features, labels = (int(n) for n in content["shape"])
        return (
            _dense(content["x_indptr"], content["x_indices"], rows, features),
            _dense(content["y_indptr"], content["y_indices"], rows, labels),
        )


def _dense(starts: NDArray[Any], columns: NDArray[Any], rows: int, width: int) -> Flags:
    starts = starts.astype(np.int64)
    if len(starts) != rows + 1 or starts[0] != 0 or starts[-1] != len(columns) or (np.diff(starts) < 0).any():
        raise ValueError("its rows do not begin and end where its entries do")
    if len(columns) and (columns.dtype.kind not in "iu" or columns.min() < 0 or columns.max() >= width):
        raise ValueError(f"an index is no whole number from 0 to {width - 1}")
    found = np.zeros((rows, width), dtype=np.uint8)
    found[np.repeat(np.arange(rows), np.diff(starts)), columns] = 1
    return found


def _read_text(path: Path) -> tuple[Flags, Flags]:
    from sklearn.datasets import load_svmlight_file  # a second of imports, needed here only

    raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    heading, _, rest = raw.partition(b"\n")
    size = None
    if b":" not in heading and len(heading.split()) == 3:
        raw, size = rest, [int(n) for n in heading.split()]
    features, labels = load_svmlight_file(
        io.BytesIO(raw), multilabel=True, zero_based=True, n_features=size[1] if size else None
    )
    if not np.isin(features.data, (0, 1)).all():
        raise ValueError("a feature has a value that is neither 0 nor 1")
    if size and len(labels) != size[0]:
        raise ValueError(f"it announces {size[0]} rows, but has {len(labels)}")
    every = np.array([label for row in labels for label in row])
    if not ((every >= 0) & (every < np.inf) & (every == np.floor(every))).all():
        raise ValueError("a label is no whole number from 0 on")
    width = size[2] if size else 1 + int(every.max(initial=0))
    if width > LARGEST:
        raise ValueError(f"label {width - 1} is beyond the {LARGEST:,} that can be stored")
    sets = np.zeros((len(labels), width), dtype=np.uint8)
    for i, row in enumerate(labels):
        sets[i, [int(label) for label in row]] = 1
    return features.toarray().astype(np.uint8), sets
