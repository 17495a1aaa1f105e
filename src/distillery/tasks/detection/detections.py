"""What a detector is given and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torchvision.ops import box_convert

from distillery.models.base import Network, Outputs

# Columns of a batch's targets, (B, M, 9) float: the class, -1 in rows that hold no object; the box's centre and size in
# units of the image without its padding; height and width of that image; height and width with the padding.
CLASS, BOX, SIZE, PADDED = 0, slice(1, 5), slice(5, 7), slice(7, 9)
COLUMNS = 9
Head = Literal["set", "anchors"]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images of several sizes in one batch, on the device.

    Attributes:
        images: (B, 3, H, W) normalised, zero to the right of and below each image.
        padding: (B, H, W), true where there is no image.
    """

    images: Tensor
    padding: Tensor

    @property
    def device(self) -> torch.device:
        return self.images.device


@dataclass(frozen=True, slots=True)
class Detections(Outputs):
    """What a detector gives; `logits` holds classes and boxes, so that it is gathered like any network's.

    Attributes:
        logits: of a "set" (B, sets, T, C + 4): C class logits, then centre and size in units of the image without
            padding; the last set is the prediction. Of "anchors" (B, A, C + 8): C class logits, 4 offsets from the
            anchor, and the anchor itself, its corners in pixels.
        maps: projected maps, (B, C, h, w) each, the finest first: what the pyramid gives to the heads.
        tokens: of ViDT the same maps as (B, h w, C), and last the detection tokens of all sets, (B, sets, T, C).
        head: which of both.
    """

    head: Head = "set"


class Detector(Network):
    """Base of every network that finds objects: `forward(pictures) -> Detections`.

    Attributes:
        no_classifier: what `load_student` says of it.
    """

    no_classifier: ClassVar[str] = "a detector: open it by distillery.tasks.detection.detector.load_detector"

    def forward(self, pictures: Pictures, preacts: bool = False) -> Detections:  # type: ignore[override]
        """Find objects in a batch of images."""
        raise TypeError(f"{type(self).__name__} has no forward pass")


def objects(targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of every image the (n,) int64 classes and the (n, 4) boxes, centre and size, of the objects in it."""
    return [(rows[:, CLASS].long(), rows[:, BOX]) for rows in (t[t[:, CLASS] >= 0] for t in targets)]


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size -> left, top, right, bottom."""
    return box_convert(boxes, "cxcywh", "xyxy")
