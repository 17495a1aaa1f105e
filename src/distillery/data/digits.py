"""Handwritten digits that ship inside scikit-learn: 1,797 real scans, 8x8 greys 0..16, 10 classes.

They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field

from distillery.data.arrays import Arrays, Shape, Source
from distillery.records.io import DistilleryError

SCALE = 16.0
COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)  # scans of each digit


class Digits(Source):
    """Split the scans into training and test images, the same way everywhere.

    Rows are sorted by (label, original index). Of the n images of a class, m = round(n * test_fraction) are tested,
    spread evenly: the k-th (from 0) is a test image if k*m/n and (k+1)*m/n have different whole parts. No random state.
    """

    class Config(Source.Config):
        test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
        """Of each class; with 0.5 one test image is 0.11 percentage points."""

    config: Config

    def shape(self) -> Shape:
        train = sum(n - m for n, m in _counts(COUNTS, self.config.test_fraction))
        return Shape(1, 8, 8, len(COUNTS), train, scale=SCALE)

    def load(self) -> Arrays:
        return _split(self.config.test_fraction)


def _split(fraction: float) -> Arrays:
    from sklearn.datasets import load_digits  # a second of imports, needed here only

    found = load_digits()
    order = np.argsort(found.target, kind="stable")
    images = found.images[order].astype(np.uint8)[..., None]
    labels = found.target[order].astype(np.uint8)
    if not np.array_equal(images[..., 0], found.images[order]) or images.max() > SCALE:
        raise DistilleryError("scikit-learn's digits are not the greys 0..16; install the locked version of it")
    test = np.concatenate([_spread(n, m) for n, m in _counts(np.bincount(labels).tolist(), fraction)])
    pixels = images[~test].astype(np.int64)
    mean = pixels.mean() / SCALE
    std = np.sqrt((pixels**2).mean() / SCALE**2 - mean**2)
    return Arrays(
        tensors={
            "train_images": images[~test],
            "train_labels": labels[~test],
            "test_images": images[test],
            "test_labels": labels[test],
        },
        class_names=[str(name) for name in found.target_names],
        scale=SCALE,
        mean=[round(float(mean), 4)],
        std=[round(float(std), 4)],
        selection={"test_fraction": fraction},
    )


def _counts(sizes: Iterable[int], fraction: float) -> list[tuple[int, int]]:
    """Images and test images of each class."""
    counts = [(n, round(n * fraction)) for n in sizes]
    if not all(0 < m < n for n, m in counts):
        raise DistilleryError(f"test_fraction {fraction:g} leaves a class without training or without test images")
    return counts


def _spread(n: int, m: int) -> np.ndarray:
    """Boolean mask of length n with m evenly spaced True entries."""
    k = np.arange(n)
    return (k + 1) * m // n > k * m // n
