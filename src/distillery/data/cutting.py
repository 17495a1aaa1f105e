"""One image of a blob in one view: decoded, cropped, resized, cropped again, mirrored. What worker processes do.

A view is a row of numbers, so whoever makes it needs nothing but the blob. Decoding is TorchCodec's where it is
installed (the extra `stream`) and the image is a plain JPEG, else Pillow's: both use libjpeg-turbo and give the same
pixels, and TorchCodec is faster (benchmarks/streaming.py). Resizing is that of
`torchvision.transforms.v2.functional.resize(antialias=True)` on uint8.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distillery.data.arrays import Bytes
from distillery.data.blob import PLAIN, UPRIGHT, Blob

# What a row of numbers says: where the bytes are and how they are decoded; the crop of the decoded image; the size to
# which it is resized; top and left of the part of that which is kept; whether that is mirrored; by which interpolation.
COLUMNS = (
    *("offset", "length", "way", "top", "left", "height", "width"),
    *("high", "wide", "from_top", "from_left", "flip", "interpolation"),
)
INTERPOLATIONS = ("bilinear", "bicubic")  # by the number in that column

_ARM = ("aarch64", "arm64")

Cuts = NDArray[np.int64]  # (B, 13)


class Undecodable(Exception):
    """An image of a blob that cannot be decoded.

    Attributes:
        offset: where its bytes begin.
        why: one clause.
    """

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(offset, why)
        self.offset, self.why = offset, why


def cut(blob: Blob, row: NDArray[np.int64], into: Bytes, shorten: bool = False) -> None:
    """Make one view.

    Args:
        row: (13,) int64, see COLUMNS.
        into: (3, H, W) uint8, filled with the view.
        shorten: spare the decoding of rows below the crop; to be used within `silenced`.

    Raises:
        Undecodable: if the image cannot be decoded.
    """
    offset, length, way, top, left, height, width, high, wide, from_top, from_left, flip, kernel = row.tolist()
    try:
        image = decode_part(blob.read(offset, length), way, (top, left, height, width), shorten)
    except Exception as error:  # whatever decoders and the file system raise
        said = " ".join(str(error).split()).rstrip(".")
        raise Undecodable(offset, said[:200] or type(error).__name__) from None
    image = resize(image, high, wide, INTERPOLATIONS[kernel])
    pixels = image[:, from_top : from_top + into.shape[1], from_left : from_left + into.shape[2]].numpy()
    into[...] = pixels[:, :, ::-1] if flip else pixels


def resize(image: Tensor, height: int, width: int, interpolation: str = "bilinear") -> Tensor:
    """`torchvision.transforms.v2.functional.resize(antialias=True)` of a (C, H, W) uint8 image."""
    if image.shape[1:] == (height, width):
        return image
    vector = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in _ARM
    whole_numbers = vector or interpolation == "bicubic"  # torchvision's own choice
    batch = image[None] if whole_numbers else image[None].float()
    resized = F.interpolate(batch, (height, width), mode=interpolation, align_corners=False, antialias=True)[0]
    return resized if whole_numbers else resized.round_().to(torch.uint8)


def decode_part(content: bytes, way: int, box: tuple[int, int, int, int], shorten: bool = False) -> Tensor:
    """Decode an image; return a part of it, (3, height, width) uint8. `box`: top, left, height, width."""
    top, left, height, width = box
    if shorten and way == PLAIN:
        content = shortened(content, top + height)
    fast = _torchcodec()
    if fast and way == PLAIN:
        return fast(content)[:, top : top + height, left : left + width]
    from distillery.data.pictures import quietly, whole

    with quietly():
        image = whole(content, upright=way == UPRIGHT)
    part = np.array(image.crop((left, top, left + width, top + height)))
    return torch.from_numpy(part).permute(2, 0, 1)


def shortened(content: bytes, bottom: int) -> bytes:
    """A JPEG whose header says that it ends some rows below `bottom`, where that spares decoding.

    The rows above `bottom` keep their values to the bit: below them is left a whole row of the units that are coded
    together, which is as far as the smoothing of colours looks. What is not sequential (SOF0, SOF1) stays whole.
    """
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        kind, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if kind in (0xC0, 0xC1):
            # length (2 bytes), bits a sample, height (2), width (2), components, of each: name, factors (4 bits), table
            unit = 8 * max((factors & 15 for factors in content[at + 11 : at + 2 + length : 3]), default=4)
            rows = ((bottom - 1) // unit + 2) * unit
            if rows >= int.from_bytes(content[at + 5 : at + 7], "big"):
                return content
            return content[: at + 5] + rows.to_bytes(2, "big") + content[at + 7 :]
        if kind in (0xC2, 0xDA):  # progressive; or the image itself begins
            return content
        at += 2 + length
    return content


@contextmanager
def silenced() -> Iterator[None]:
    """Keep off the console what C libraries print: libjpeg warns of every image that is `shortened`.

    What Python prints still gets there. For processes of one thread.
    """
    before, console = sys.stderr, os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        with os.fdopen(os.dup(console), "w", buffering=1) as sys.stderr:
            yield
    finally:
        sys.stderr = before
        os.dup2(console, 2)
        os.close(console)


@cache
def _torchcodec() -> Callable[[bytes], Tensor] | None:
    """TorchCodec's decoder to RGB, if it is installed and can be loaded."""
    if importlib.util.find_spec("torchcodec") is None:
        return None
    try:
        decoders: Any = importlib.import_module("torchcodec.decoders")
        decode: Callable[[bytes], Tensor] = decoders.decode_jpeg
    except (ImportError, OSError, RuntimeError, AttributeError):  # made for another torch, or older than 0.16
        return None
    return decode


def decoder() -> str:
    """Which decoder plain JPEGs go through: its name, for the record."""
    return "torchcodec" if _torchcodec() else "pillow"
