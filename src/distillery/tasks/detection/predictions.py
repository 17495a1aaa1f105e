"""From what a detector gives to the objects that it found: boxes in pixels, scores, classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from distillery.tasks.detection.criterion import CODER
from distillery.tasks.detection.detections import Detections, corners

MOST = 100  # objects of an image, as COCO counts them
COLUMNS = 6  # of an object: left, top, right, bottom in pixels; score; class
SURE = 0.3  # score from which on an object counts as found
FEW, CANDIDATES, OVERLAP = 0.05, 1000, 0.5  # of RetinaNet: least score, candidates of an image, IoU of duplicates


@torch.no_grad()
def best_of_sets(predicted: Tensor, sizes: Tensor, most: int = MOST) -> Tensor:
    """The best pairs of token and class, (B, most, 6), of (B, sets, T, C + 4); `sizes` (B, 2) height and width."""
    logits, boxes = predicted[:, -1, :, :-4].float(), corners(predicted[:, -1, :, -4:].float())
    classes = logits.shape[2]
    scores, at = logits.sigmoid().flatten(1).topk(min(most, logits[0].numel()), dim=1)
    boxes = boxes.gather(1, (at // classes)[..., None].expand(-1, -1, 4)) * sizes.flip(1).repeat(1, 2)[:, None].float()
    found = torch.cat([boxes, scores[..., None], (at % classes)[..., None].float()], dim=-1)
    return _filled(found, most)


@torch.no_grad()
def best_of_anchors(predicted: Tensor, scale: Tensor, sizes: Tensor, most: int = MOST) -> Tensor:
    """The best pairs of anchor and class without duplicates, (B, most, 6); places without an object have score 0.

    Args:
        predicted: (B, A, C + 8).
        scale: (B, 2) pixels of the original image per pixel of the input, down and across.
        sizes: (B, 2) height and width of the original image.
    """
    found = predicted.new_zeros(len(predicted), most, COLUMNS, dtype=torch.float32)
    for i, rows in enumerate(predicted.float()):
        scores, at = rows[:, :-8].sigmoid().flatten().topk(min(CANDIDATES, rows[:, :-8].numel()))
        scores, at = scores[scores > FEW], at[scores > FEW]
        anchor, label = at // rows[:, :-8].shape[1], at % rows[:, :-8].shape[1]
        boxes = CODER.decode_single(rows[anchor, -8:-4], rows[anchor, -4:]) * scale[i].flip(0).repeat(2)
        boxes = clip_boxes_to_image(boxes, (int(sizes[i, 0]), int(sizes[i, 1])))
        kept = batched_nms(boxes, scores, label, OVERLAP)[:most]
        found[i, : len(kept)] = torch.cat([boxes[kept], scores[kept, None], label[kept, None].float()], dim=1)
    return found


def found_in(outputs: Detections, seen: Tensor, sizes: Tensor) -> Tensor:
    """The objects in a batch, (B, 100, 6) in pixels of the original images; best first, then places with score 0.

    Of an image for which the network gives NaN or infinity all is NaN: no such score is above any bound, so it would
    pass for an image without objects.

    Args:
        seen: (B, 2) height and width of the images as the network saw them, without padding.
        sizes: (B, 2) of the original images.
    """
    if outputs.head == "set":
        found = best_of_sets(outputs.logits, sizes)
    else:
        found = best_of_anchors(outputs.logits, sizes / seen, sizes)
    return found.where(outputs.logits.flatten(1).isfinite().all(1)[:, None, None], torch.nan)


def _filled(found: Tensor, most: int) -> Tensor:
    return torch.cat([found, found.new_zeros(len(found), most - found.shape[1], COLUMNS)], dim=1)
