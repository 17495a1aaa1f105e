"""Which part of each image is seen in an epoch: RandomResizedCrop as a pure function of (view seed, epoch, image).

A streamed view cannot be enumerated, but it can be computed for any image alone, at any time, by any process: its
random numbers are the words of a counter-based generator (Philox 4x64-10; Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011) whose key is the hash of view seed and epoch and whose counter is the image's place in the
canonical order. numpy only; 1.28 million images take about a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distillery.data.views import seed_for

TRIES = 10  # candidates for a crop's size before the centre is taken
WORDS = 24  # of the generator for each image: 2 a try, 2 for the place, 1 for the flip, 1 unused
_BLOCK = 4  # words that one step of Philox's counter makes
_AT_ONCE = 1 << 16  # images: bounds the memory, 12 MB of random words

Sides = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Crops:
    """What is drawn.

    Attributes:
        scale: least and largest share of the image's area.
        ratio: least and largest width / height, drawn uniformly in the logarithm.
        flip: whether half of the views are mirrored.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True


def uniforms(seed: int, epoch: int, first: int, count: int, what: str = "crops") -> NDArray[np.float64]:
    """Random numbers in [0, 1) of images first to first + count: (count, WORDS), row i a function of image i alone."""
    generator = np.random.Philox(key=seed_for(seed, epoch, what))
    generator.advance(first * WORDS // _BLOCK)
    words: NDArray[np.uint64] = generator.random_raw(count * WORDS)
    return ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(count, WORDS)


def draw_crops(
    crops: Crops, seed: int, epoch: int, heights: Sides, widths: Sides, what: str = "crops"
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The crops of all images in an epoch, in canonical order, by torchvision's algorithm (`RandomResizedCrop`).

    Up to ten times an area and a ratio are drawn; the first crop that fits is placed at random. If none fits, it is
    the largest crop at the centre whose ratio is allowed.

    Args:
        heights, widths: (N,) of the images, in pixels.
        what: other crops of the same images have another name.

    Returns:
        (N, 4) int32 boxes: top, left, height, width; and (N,) whether the view is mirrored.
    """
    count = len(heights)
    boxes, flips = np.empty((count, 4), dtype=np.int32), np.empty(count, dtype=np.bool_)
    for start in range(0, count, _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, count))
        random = uniforms(seed, epoch, start, part.stop - start, what)
        boxes[part] = _boxes(crops, random, heights[part].astype(np.int64), widths[part].astype(np.int64))
        flips[part] = crops.flip & (random[:, 2 * TRIES + 2] < 0.5)
    return boxes, flips


def _boxes(
    crops: Crops, random: NDArray[np.float64], heights: NDArray[np.int64], widths: NDArray[np.int64]
) -> NDArray[np.int64]:
    (least, largest), (low, high) = crops.scale, (math.log(r) for r in crops.ratio)
    sides = np.stack(_centre(crops, heights, widths), axis=1)
    open_ = np.arange(len(random))  # images without a crop so far
    fitted = np.zeros(len(random), dtype=np.bool_)
    for k in range(TRIES):
        area = (heights * widths)[open_] * (least + (largest - least) * random[open_, 2 * k])
        ratio = np.exp(low + (high - low) * random[open_, 2 * k + 1])
        width, height = (np.rint(np.sqrt(a)).astype(np.int64) for a in (area * ratio, area / ratio))
        fits = (width > 0) & (width <= widths[open_]) & (height > 0) & (height <= heights[open_])
        sides[open_[fits]] = np.stack([height[fits], width[fits]], axis=1)
        fitted[open_[fits]] = True
        open_ = open_[~fits]
    room = np.stack([heights, widths], axis=1) - sides
    place = np.floor(random[:, 2 * TRIES : 2 * TRIES + 2] * (room + 1)).astype(np.int64)
    return np.concatenate([np.where(fitted[:, None], place, room // 2), sides], axis=1)


def _centre(
    crops: Crops, heights: NDArray[np.int64], widths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Height and width of the largest crop of an allowed ratio."""
    low, high = crops.ratio
    ratio = widths / heights
    height = np.where(ratio < low, np.rint(widths / low).astype(np.int64), heights)
    width = np.where(ratio > high, np.rint(heights * high).astype(np.int64), widths)
    return height, width


def centre_geometry(
    heights: Sides, widths: Sides, short_side: int, size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Evaluation: torchvision's `Resize(short_side)` and `CenterCrop(size)`.

    Returns:
        (N, 2) heights and widths to which the whole images are resized, and (N, 2) top and left of the part that is
        cut out of that.
    """
    high, wide = heights.astype(np.int64), widths.astype(np.int64)
    shorter = np.minimum(high, wide)
    resized = np.stack([short_side * high // shorter, short_side * wide // shorter], axis=1)
    return resized, np.rint((resized - np.array(size)) / 2.0).astype(np.int64)
