"""Detections drawn into their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes

from distillery.data.blob import Blob
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.views import fitted

SHOWN = 4  # test images, spread over all of them
SIDE = 320  # of a drawing, in pixels


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


def drawn(found: NDArray[np.float32], data: BoxData, least: float) -> NDArray[np.uint8]:
    """Drawings of a few test images, (4, 320, 320, 3), each in the upper left corner of a black square."""
    blob = Blob(data.blob)
    rows = sorted({len(data.test) * i // SHOWN for i in range(SHOWN)})
    canvas = torch.zeros(len(rows), 3, SIDE, SIDE, dtype=torch.uint8)
    for place, row in enumerate(rows):
        image, size = data.image(blob, data.test, row), data.test.size(row)
        small = fitted(size, SIDE, SIDE)
        scaled = torch.from_numpy(found[row]).clone()
        scaled[:, [0, 2]] *= small[1] / size[1]
        scaled[:, [1, 3]] *= small[0] / size[0]
        canvas[place, :, : small[0], : small[1]] = draw(F.resize(image, [*small]), scaled, data.class_names, least)
    blob.close()
    return canvas.permute(0, 2, 3, 1).numpy()
