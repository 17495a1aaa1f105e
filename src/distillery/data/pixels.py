"""What is computed of whole sets of images, in whole numbers, so that it is the same everywhere. numpy only."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillery.data.arrays import Bytes, Shape
from distillery.errors import DistilleryError

LARGEST = 65_536  # classes: labels are stored in two bytes
_CHUNK = 1024  # images at a time


def as_labels(labels: Sequence[int] | NDArray[Any], classes: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Labels in the type that so many classes need. Raises DistilleryError for more classes than LARGEST."""
    if classes > LARGEST:
        raise DistilleryError(f"there are {classes:,} classes, but labels of at most {LARGEST:,} can be stored")
    return np.array(labels, dtype=np.uint8) if classes <= 256 else np.array(labels, dtype=np.uint16)


def constants(
    mean: Sequence[float] | None, std: Sequence[float] | None, images: Bytes
) -> tuple[list[float], list[float]]:
    """What images are normalised with: what is given, else the statistics of the training images."""
    return mean_and_std(images) if mean is None or std is None else ([*mean], [*std])


def mean_and_std(images: Bytes) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of (N, H, W, C) images, over 255, to four digits.

    Counted exactly: neither the order of the images nor the machine can change them. Raises DistilleryError for a
    channel of one value, which nothing can be learnt from.
    """
    counts = np.zeros((images.shape[-1], 256), dtype=np.int64)
    for start in range(0, len(images), _CHUNK):
        counts += count_values(images[start : start + _CHUNK])
    return of_counts(counts)


def count_values(images: Bytes) -> NDArray[np.int64]:
    """How often each value occurs in each channel of (..., C) images: (C, 256)."""
    return np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])


def of_counts(counts: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Like `mean_and_std`, from the number of pixels of each value, (C, 256)."""
    means, deviations, values = [], [], range(256)
    for channel, row in enumerate(counts):
        n = int(row.sum())
        total, squares = (sum(int(c) * v**power for v, c in zip(values, row, strict=True)) for power in (1, 2))
        deviation = round(math.sqrt(n * squares - total * total) / (255 * n), 4)
        if deviation == 0:  # images are divided by it
            raise DistilleryError(f"channel {channel} has one value in all training images: use other images")
        means.append(round(total / (255 * n), 4))
        deviations.append(deviation)
    return means, deviations


def hash_image(image: Bytes) -> bytes:
    """What tells one image from another: 32 bytes made of its pixels."""
    return hashlib.sha256(image.tobytes()).digest()


def repeated(train: Iterable[bytes], test: Iterable[bytes]) -> int:
    """Count the test images whose very pixels occur among the training images, by hashes of both."""
    seen = {*train}
    return sum(image in seen for image in test)


def tested_by_rule(keys: Sequence[bytes], fraction: float) -> NDArray[np.bool_]:
    """Mark which images of one class are tested: round(n * fraction) of them, but at least one, and not all.

    `keys` are hashes; the images of the lowest are tested. So it depends on no random state and no order, and an image
    more or less moves at most one other.
    """
    n, marked = len(keys), np.zeros(len(keys), dtype=bool)
    count = min(max(round(n * fraction), 1), n - 1)
    marked[sorted(range(n), key=lambda i: (keys[i], i))[:count]] = True
    return marked


def left_for_training(n: int, fraction: float) -> int:
    """How many images of a class of n `tested_by_rule` leaves for training."""
    return n - min(max(round(n * fraction), 1), n - 1)


def too_large(shape: Shape) -> str:
    """Say in one sentence that the arrays will fill more than half of the machine's memory; "" if they do not."""
    size = (shape.train_images + shape.test_images) * shape.height * shape.width * shape.channels
    memory = _memory()
    if 2 * size <= memory:
        return ""
    return (
        f"the images will take {size / 1e9:.1f} GB as arrays, more than half of this machine's {memory / 1e9:.1f} GB "
        "of memory, and training copies them once more: choose a smaller `size` or fewer images if a job is killed"
    )


def _memory() -> int:
    """Bytes that this process may have: of the machine, or of its control group where that is less."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            memory = min(memory, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return memory
