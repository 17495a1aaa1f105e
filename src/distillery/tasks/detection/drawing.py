"""Detections drawn into their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes

from distillery.data.blob import Blob
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.views import fitted

SHOWN = 3  # test images that are drawn, spread over all of them
SIDE = 320  # of a drawing, in pixels
KEPT = 160  # of an image that is kept for the report


def draw(image: Tensor, detections: Tensor, class_names: Sequence[str], least: float) -> Tensor:
    """Draw detections into an image.

    Args:
        image: (3, H, W) uint8.
        detections: (n, 6), `predictions.found_in`, in pixels of this image.
        least: score below which a detection is left out.
    """
    kept = detections[detections[:, 4] >= least]
    if not len(kept):
        return image
    labels = [f"{class_names[int(row[5])] or int(row[5])} {row[4]:.2f}" for row in kept]
    return draw_bounding_boxes(image, kept[:, :4].round(), labels, width=2)


def drawn(found: NDArray[np.float32], data: BoxData, least: float) -> list[NDArray[np.uint8]]:
    """Drawings (h, w, 3) of a few test images, at most 320 pixels high and wide, of all (N, 100, 6) detections."""
    drawings = []
    for row, image, (height, width) in _examples(data, SIDE):
        scaled = torch.from_numpy(found[row]).clone()
        scaled[:, [0, 2]] *= image.shape[2] / width
        scaled[:, [1, 3]] *= image.shape[1] / height
        drawings.append(draw(image, scaled, data.class_names, least).permute(1, 2, 0).numpy())
    return drawings


def examples(data: BoxData) -> dict[str, NDArray[Any]]:
    """A few test images for the report, which draws what was found in them.

    Returns:
        `example_rows` (n,), which test images they are; `example_images` (n, 160, 160, 3) uint8, each in the upper left
        corner of a black square; `example_sizes` (n, 4), height and width there, then those of the test image.
    """
    rows, sizes, images = [], [], []
    for row, image, size in _examples(data, KEPT):
        rows.append(row)
        sizes.append((*image.shape[1:], *size))
        canvas = np.zeros((KEPT, KEPT, 3), dtype=np.uint8)
        canvas[: image.shape[1], : image.shape[2]] = image.permute(1, 2, 0).numpy()
        images.append(canvas)
    return {"example_rows": np.array(rows), "example_sizes": np.array(sizes), "example_images": np.stack(images)}


def _examples(data: BoxData, side: int) -> Iterator[tuple[int, Tensor, tuple[int, int]]]:
    """Of a few test images the row, the (3, h, w) uint8 image, at most `side` high and wide, and its own size."""
    blob = Blob(data.blob)
    for row in sorted({len(data.test) * i // SHOWN for i in range(SHOWN)}):
        size = data.test.size(row)
        yield row, F.resize(data.image(blob, data.test, row), [*fitted(size, side, side)]), size
    blob.close()
