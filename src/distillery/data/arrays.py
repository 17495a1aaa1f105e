"""What a data source hands over: the canonical arrays and the facts about them. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Arrays:
    """A data set in canonical order.

    Attributes:
        tensors: train_images and test_images (N, H, W, C), train_labels and test_labels (N,), perhaps train_coarse and
            test_coarse (N,); all uint8 and C-contiguous. Rows are sorted by label, then by a name of the image.
        class_names: name of every label.
        scale: pixel value of full brightness.
        mean, std: per channel, in units of `scale`; the constants that the images are normalised with.
        selection: the options that decided the content (a subset, a test fraction).
    """

    tensors: dict[str, Bytes]
    class_names: list[str]
    scale: float
    mean: list[float]
    std: list[float]
    selection: dict[str, Any]
