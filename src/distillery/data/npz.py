"""Own images in numpy files: `images` (N, H, W) or (N, H, W, C), `labels` (N,), and `class_names` if there are any.

Either one file, of which a fixed share of each class is tested (the images whose pixels have the lowest sha256), or one
for training and one for testing, or one that holds both (`train_images`, `train_labels`, `test_images`, `test_labels`
as MedMNIST has them, or `x_train`, `y_train`, `x_test`, `y_test` as Keras has them). Nothing is unpickled.

Pixels are whole numbers 0..255 (uint8), or fractions: those that are k/255 with a whole k, or any that `scale` brings
to 0..255, then rounded. Rows are sorted by label and stay in the order of the file within a class.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from distillery.config import Positive, Share, Spread
from distillery.data.arrays import Arrays, Bytes, Shape, Source
from distillery.data.listing import FRACTION, some
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
from distillery.errors.words import nearest

_BOTH = (  # names of the four arrays in a file that holds both splits
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)


@dataclass(frozen=True)
class _Part:
    """Where the images and labels of one split are."""

    file: Path
    images: str
    labels: str


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
        shapes = [_image_shape(part) for part in parts]
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
        splits = [(_pixels(part, self.config.scale), rows) for part, rows in zip(parts, labels, strict=True)]
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

    def _parts(self) -> list[_Part]:
        """Find the arrays: of one split, to be divided, or of training and test."""
        files = self.files()
        if len(files) == 2:
            return [_Part(file, "images", "labels") for file in files]
        with _opened(files[0]) as content:
            for names in _BOTH:
                if names[0] in content.files:
                    if self.config.test_fraction is not None:
                        raise DistilleryError(
                            f"data.test_fraction has no effect: {files[0]} has test images of its own"
                        )
                    return [_Part(files[0], *names[:2]), _Part(files[0], *names[2:])]
        return [_Part(files[0], "images", "labels")]

    def _labels(self, parts: list[_Part]) -> tuple[list[NDArray[np.int64]], list[str]]:
        """Read the labels of every part, and the names of the classes; refuse what contradicts itself."""
        labels = [_whole_numbers(part) for part in parts]
        given = [found for part in parts if (found := _class_names(part.file)) is not None]
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


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        content = np.load(file, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise DistilleryError(f"{file} is one array, not an .npz file: numpy.savez_compressed writes one")
        with content:
            yield content
    except FileNotFoundError:
        raise DistilleryError(f"there is no file {file}: correct `data:`") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        said = " ".join(str(error).split()).rstrip(".")
        hint = "it holds Python objects" if "allow_pickle" in said else said[:100] or type(error).__name__
        raise DistilleryError(f"cannot read {file} ({hint}): write it anew by numpy.savez_compressed") from None


def _array(file: Path, name: str) -> NDArray[Any]:
    with _opened(file) as content:
        if name not in content.files:
            raise DistilleryError(f"{file} has no array {name!r}: {nearest(name, content.files)}")
        return np.asarray(content[name])


def _whole_numbers(part: _Part) -> NDArray[np.int64]:
    """Read labels: whole numbers from 0, (N,) or (N, 1)."""
    labels = _array(part.file, part.labels)
    where = f"{part.file}: {part.labels}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) == 0:
        raise DistilleryError(f"{where} has shape {labels.shape}: give one label for each image")
    if labels.dtype.kind not in "iu":
        raise DistilleryError(f"{where} is of type {labels.dtype}: give whole numbers (and names as `class_names`)")
    if labels.min() < 0:
        raise DistilleryError(f"{where} holds {int(labels.min())}: labels count from 0")
    if labels.max() > 65_535:
        raise DistilleryError(f"{where} holds {int(labels.max())}: labels end at 65535")
    return labels.astype(np.int64)


def _class_names(file: Path) -> list[str] | None:
    with _opened(file) as content:
        if "class_names" not in content.files:
            return None
        names = np.asarray(content["class_names"])
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DistilleryError(f"{file}: class_names is {names.dtype} of shape {names.shape}: give a list of texts")
    try:
        found = [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
    except UnicodeDecodeError:
        raise DistilleryError(f"{file}: class_names are not UTF-8: store them as text") from None
    if len({*found}) != len(found):
        raise DistilleryError(f"{file}: class_names has a name twice: give each class a name of its own")
    return found


def _image_shape(part: _Part) -> tuple[int, int, int, int]:
    """Read only the header of the images: (N, H, W, C)."""
    with _opened(part.file) as content:
        if part.images not in content.files:
            raise DistilleryError(f"{part.file} has no array {part.images!r}: {nearest(part.images, content.files)}")
        with content.zip.open(f"{part.images}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
    where = f"{part.file}: {part.images}"
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        raise DistilleryError(f"{where} has shape {shape}, channels first: transpose it to (N, H, W, C)")
    if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        raise DistilleryError(f"{where} has shape {shape}: give (N, H, W), or (N, H, W, C) with 1 or 3 channels")
    if dtype != np.uint8 and dtype.kind != "f":
        kind = "Python objects" if dtype.hasobject else f"of type {dtype}"
        raise DistilleryError(f"{where} is {kind}: store pixels as uint8 0..255, or as fractions")
    return (shape[0], shape[1], shape[2], shape[3])


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))


def _pixels(part: _Part, scale: float | None) -> Bytes:
    """Read images as (N, H, W, C) uint8."""
    images = _array(part.file, part.images).reshape(_image_shape(part))
    where = f"{part.file}: {part.images}"
    if images.dtype == np.uint8:
        if scale is not None:
            raise DistilleryError(f"data.scale has no effect: {where} is uint8 already; leave it out")
        return images
    found = np.empty(images.shape, dtype=np.uint8)
    tolerance = 255 * max(float(np.finfo(kind).eps) for kind in (images.dtype, np.float32))  # perhaps rounded before
    for i, image in enumerate(images):
        values = image.astype(np.float64) * (255.0 if scale is None else scale)
        whole = np.rint(values)
        if not np.isfinite(values).all():
            raise DistilleryError(f"{where}: image {i} holds NaN or infinity: mend it")
        if whole.min() < 0 or whole.max() > 255:
            between = f"{image.min():g} to {image.max():g}"
            raise DistilleryError(
                f"{where}: image {i} has pixels from {between}: give 0..1, or `data.scale` for 0..255"
            )
        if scale is None and np.abs(values - whole).max() > tolerance:
            raise DistilleryError(
                f"{where}: image {i} has fractions that are not k/255, and rounding would change them: set "
                "`data.scale: 255` to have them rounded"
            )
        found[i] = whole
    return found


def _sorted(images: Bytes, labels: NDArray[np.int64]) -> tuple[Bytes, NDArray[np.int64]]:
    order = np.argsort(labels, kind="stable")
    return np.ascontiguousarray(images[order]), labels[order]
