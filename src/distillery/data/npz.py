"""Own images in numpy files: `images` (N, H, W) or (N, H, W, C), `labels` (N,), and `class_names` if there are any.

Either one file, of which a fixed share of each class is tested (the images whose pixels have the lowest sha256), or one
for training and one for testing, or one that holds both (`train_images`, `train_labels`, `test_images`, `test_labels`
as MedMNIST has them, or `x_train`, `y_train`, `x_test`, `y_test` as Keras has them). What is in them: `npz_files`.

Rows are sorted by label and stay in the order of the file within a class.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from distillery.config import Positive, Share, Spread
from distillery.data.arrays import Arrays, Bytes, Shape, Source
from distillery.data.listing import FRACTION
from distillery.data.npz_files import Part, labels_of, names_of, opened, pixels_of, shape_of
from distillery.data.photos import PER_CHANNEL
from distillery.data.pixels import (
    as_labels,
    constants,
    hash_image,
    left_for_training,
    repeated,
    tested_by_rule,
)
from distillery.errors import DistilleryError
from distillery.errors.words import some

_BOTH = (  # names of the four arrays in a file that holds both splits
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)


class Npz(Source):
    """Read images and labels from one or two .npz files."""

    class Config(Source.Config):
        path: str | None = None
        """The file that holds everything."""
        train: str | None = None
        """The file with the training images, if there are two."""
        test: str | None = None
        """The file with the test images."""
        test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
        """Of each class, where nothing in the file says what is tested; default 0.2."""
        scale: Positive | None = None
        """Fractions are multiplied by it and rounded."""
        mean: Annotated[tuple[Share, ...] | None, PER_CHANNEL] = None
        """Per channel, between 0 and 1, that images are normalised with; default: of the training images."""
        std: Annotated[tuple[Spread, ...] | None, PER_CHANNEL] = None
        """Likewise the standard deviation; give both or neither."""

        @model_validator(mode="after")
        def _whole(self) -> Npz.Config:
            one, two = self.path is not None, (self.train is not None, self.test is not None)
            if any(two) != all(two) or one == any(two):
                raise ValueError("path: give either this, or `train` and `test`")
            if all(two) and self.test_fraction is not None:
                raise ValueError("test_fraction: has no effect where `test` names a file; leave one of them out")
            if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
                raise ValueError("mean and std: give both or neither, with a number for each channel")
            return self

    config: Config

    def selection(self) -> dict[str, Any]:
        values = self.config.effective()
        fraction = FRACTION if values["test_fraction"] is None else values["test_fraction"]
        return {key: values[key] for key in ("scale", "mean", "std")} | {"test_fraction": fraction}

    def files(self) -> list[Path]:
        named = (self.config.path, self.config.train, self.config.test)
        return [Path(name).expanduser() for name in named if name is not None]

    def shape(self) -> Shape:
        parts = self._parts()
        labels, names = self._labels(parts)
        shapes = [shape_of(part) for part in parts]
        if len({s[1:] for s in shapes}) > 1:
            raise DistilleryError(
                f"{parts[0].file} has images of {_by(shapes[0])}, but {parts[1].file} {_by(shapes[1])}"
            )
        for part, shape, rows in zip(parts, shapes, labels, strict=True):
            if shape[0] != len(rows):
                raise DistilleryError(f"{part.file} has {shape[0]:,} images, but {len(rows):,} labels")
        counts = [int(n) for n in np.bincount(labels[0])]
        train = sum(counts) if len(parts) == 2 else sum(left_for_training(n, self._fraction) for n in counts)
        height, width, channels = shapes[0][1:]
        if self.config.mean is not None and len(self.config.mean) != channels:
            raise DistilleryError(
                f"data.mean has {len(self.config.mean)} numbers, but the images {channels} channel(s)"
            )
        return Shape(channels, height, width, len(names), train, sum(map(len, labels)) - train)

    def load(self) -> Arrays:
        self.shape()
        parts = self._parts()
        labels, names = self._labels(parts)
        splits = [(pixels_of(part, self.config.scale), rows) for part, rows in zip(parts, labels, strict=True)]
        splits = [_sorted(images, rows) for images, rows in splits]
        hashes = [[hash_image(image) for image in images] for images, _ in splits]
        tested = "own file or arrays"
        if len(splits) == 1:
            (images, rows), [keys] = splits[0], hashes
            marked = np.zeros(len(rows), dtype=bool)
            for label in range(len(names)):
                members = np.flatnonzero(rows == label)
                marked[members] = tested_by_rule([keys[i] for i in members.tolist()], self._fraction)
            splits = [(images[~marked], rows[~marked]), (images[marked], rows[marked])]
            hashes = [
                [key for key, mark in zip(keys, marked.tolist(), strict=True) if mark == which]
                for which in (False, True)
            ]
            tested = f"{self._fraction:g} of each class, by content"
        if count := repeated(*hashes):
            print(f"{count:,} of {len(hashes[1]):,} test images also occur in training, pixel by pixel", flush=True)
        mean, std = constants(self.config.mean, self.config.std, splits[0][0])
        tensors: dict[str, Any] = {}
        for split, (images, rows) in zip(("train", "test"), splits, strict=True):
            tensors[f"{split}_images"] = images
            tensors[f"{split}_labels"] = as_labels(rows, len(names))
        selection = {key: value for key, value in self.selection().items() if key != "test_fraction"}
        return Arrays(tensors, names, 255.0, mean, std, selection | {"tested": tested, "repeated": count})

    @property
    def _fraction(self) -> float:
        return FRACTION if self.config.test_fraction is None else self.config.test_fraction

    def _parts(self) -> list[Part]:
        """Find the arrays: of one split, to be divided, or of training and test."""
        files = self.files()
        if len(files) == 2:
            return [Part(file, "images", "labels") for file in files]
        with opened(files[0]) as content:
            for names in _BOTH:
                if names[0] in content.files:
                    if self.config.test_fraction is not None:
                        raise DistilleryError(
                            f"data.test_fraction has no effect: {files[0]} has test images of its own"
                        )
                    return [Part(files[0], *names[:2]), Part(files[0], *names[2:])]
        return [Part(files[0], "images", "labels")]

    def _labels(self, parts: list[Part]) -> tuple[list[NDArray[np.int64]], list[str]]:
        """Read the labels of every part, and the names of the classes; refuse what contradicts itself."""
        labels = [labels_of(part) for part in parts]
        given = [found for part in parts if (found := names_of(part.file)) is not None]
        for label, called in enumerate(zip_longest(*given, fillvalue="")):
            if len({*called}) > 1:
                raise DistilleryError(
                    f"class {label} is {called[0]!r} in {parts[0].file}, but {called[1]!r} in {parts[1].file}: number "
                    "the classes alike in both"
                )
        names = given[0] if given else None
        count = max(int(rows.max()) for rows in labels) + 1
        names = [str(label) for label in range(count)] if names is None else names
        for part, rows in zip(parts, labels, strict=True):
            if count > len(names) and rows.max() >= len(names):
                raise DistilleryError(
                    f"{part.file}: label {int(rows.max())} is beyond the {len(names)} class names, which count from 0"
                )
            need = 1 if len(parts) == 2 else 2
            few = np.flatnonzero(np.bincount(rows, minlength=len(names)) < need).tolist()
            if few:
                lone = some([repr(names[i]) for i in few])
                raise DistilleryError(
                    f"{part.file} has too few images of {lone}: every class needs one for training and one for the test"
                )
        return labels, names


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))


def _sorted(images: Bytes, labels: NDArray[np.int64]) -> tuple[Bytes, NDArray[np.int64]]:
    order = np.argsort(labels, kind="stable")
    return np.ascontiguousarray(images[order]), labels[order]
