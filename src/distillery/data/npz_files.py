"""What lies in .npz files of images: labels, names of classes, shapes and pixels, refused where they contradict.

Nothing is unpickled. Pixels are whole numbers 0..255 (uint8), or fractions: those that are k/255 with a whole k, or any
that `scale` brings to 0..255, then rounded.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillery.data.arrays import Bytes
from distillery.errors import DistilleryError
from distillery.errors.words import nearest


@dataclass(frozen=True)
class Part:
    """Where the images and labels of one split are."""

    file: Path
    images: str
    labels: str


@contextmanager
def opened(file: Path) -> Iterator[Any]:
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
    with opened(file) as content:
        if name not in content.files:
            raise DistilleryError(f"{file} has no array {name!r}: {nearest(name, content.files)}")
        return np.asarray(content[name])


def labels_of(part: Part) -> NDArray[np.int64]:
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


def names_of(file: Path) -> list[str] | None:
    with opened(file) as content:
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


def shape_of(part: Part) -> tuple[int, int, int, int]:
    """Read only the header of the images: (N, H, W, C)."""
    with opened(part.file) as content:
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


def pixels_of(part: Part, scale: float | None) -> Bytes:
    """Read images as (N, H, W, C) uint8."""
    images = _array(part.file, part.images).reshape(shape_of(part))
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
