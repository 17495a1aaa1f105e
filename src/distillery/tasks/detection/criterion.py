"""What a detector's predictions are compared with: Hungarian matching and the losses of sets, and those of anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import box_iou, generalized_box_iou, sigmoid_focal_loss

from distillery.objectives.soft import full_precision
from distillery.tasks.detection.detections import CLASS, PADDED, SIZE, corners, objects

Matched = list[tuple[Tensor, Tensor]]  # of every image the predictions and the objects that belong together


class Terms(NamedTuple):
    """Losses without their weights, scalars: of classes, of boxes' coordinates, of boxes' overlap."""

    classes: Tensor
    l1: Tensor
    giou: Tensor


@torch.no_grad()
def costs(logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor, weights: Terms | Sequence[float]) -> Tensor:
    """What it costs to match each prediction with each object (Deformable DETR): (T, n).

    Args:
        logits, boxes: (T, C) and (T, 4); labels, truth: (n,) and (n, 4). Boxes are centre and size.
        weights: of the class, of the L1 distance, of the generalised IoU.
    """
    p = logits.sigmoid()[:, labels]
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
    l1 = (boxes[:, None] - truth[None]).abs().sum(-1)
    overlap = generalized_box_iou(corners(boxes), corners(truth))
    return weights[0] * (positive - negative) + weights[1] * l1 - weights[2] * overlap


def match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """The assignment of least cost of a (T, n) matrix, on its device: (min(T, n),) rows and columns."""
    # What is not a number would be refused; the loss that it makes is reported by the fit loop.
    rows, columns = linear_sum_assignment(cost.nan_to_num(nan=1e6, posinf=1e6, neginf=-1e6).cpu().double().numpy())
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)


def set_terms(logits: Tensor, boxes: Tensor, targets: Sequence[tuple[Tensor, Tensor]], matched: Matched) -> Terms:
    """The losses of one set of predictions: focal (alpha 0.25, gamma 2), L1 and 1 - GIoU, each over the objects.

    Args:
        logits, boxes: (B, T, C) and (B, T, 4).
        targets: of every image classes and boxes (`objects`).
    """
    count = max(sum(len(labels) for labels, _ in targets), 1)
    truth = torch.zeros_like(logits)
    mine, theirs = [], []
    for i, ((labels, truths), (rows, columns)) in enumerate(zip(targets, matched, strict=True)):
        truth[i, rows, labels[columns]] = 1.0
        mine.append(boxes[i, rows])
        theirs.append(truths[columns].to(boxes.dtype))
    found, wanted = torch.cat(mine), torch.cat(theirs)
    classes = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2.0, reduction="sum") / count
    # Pairs only: the diagonal of the matrix that the released code computes whole.
    overlap = _paired_giou(corners(found), corners(wanted))
    return Terms(classes, F.l1_loss(found, wanted, reduction="sum") / count, (1 - overlap).sum() / count)


def _paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of (n, 4) corners, row by row: (n,)."""
    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    outer = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inner
    return inner / union - (outer - union) / outer


def set_losses(
    predicted: Tensor, targets: Tensor, cost: Sequence[float], weights: Sequence[float]
) -> dict[str, Tensor]:
    """The weighted losses of all sets of ViDT, each matched by itself, added up by kind.

    Args:
        predicted: (B, sets, T, C + 4), `Detections.logits`.
        targets: (B, M, 9).
        cost: weights of class, L1 and GIoU in the matching; weights: the same in the loss.
    """
    predicted = full_precision(predicted)
    logits, boxes = predicted[..., :-4], predicted[..., -4:]
    truth = objects(targets.to(predicted.dtype))
    sets = []
    for s in range(predicted.shape[1]):
        pairs = zip(logits[:, s], boxes[:, s], truth, strict=True)
        matched = [match(costs(ls, bs, labels, of, cost)) for ls, bs, (labels, of) in pairs]
        sets.append(set_terms(logits[:, s], boxes[:, s], truth, matched))
    names = ("class", "l1", "giou")
    return {n: w * torch.stack(ts).sum() for n, w, ts in zip(names, weights, zip(*sets, strict=True), strict=True) if w}


CODER = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
MATCHER = Matcher(0.5, 0.4, allow_low_quality_matches=True)


def anchor_losses(predicted: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The losses of RetinaNet (Lin et al., arXiv:1708.02002, ICCV 2017): focal of classes, L1 of the offsets.

    An anchor is an object's from an IoU of 0.5 on, or where none is better for the object; below 0.4 it is background,
    between them nothing. Sums over an image are divided by its anchors with objects, then averaged over images.

    Args:
        predicted: (B, A, C + 8), `Detections.logits`.
        targets: (B, M, 9).
    """
    predicted = full_precision(predicted)
    logits, offsets, anchors = predicted[..., :-8], predicted[..., -8:-4], predicted[..., -4:]
    classes, boxes = predicted.new_zeros(()), predicted.new_zeros(())
    for i, rows in enumerate(targets.to(predicted.dtype)):
        rows = rows[rows[:, CLASS] >= 0]
        labels, truth = rows[:, CLASS].long(), in_pixels(rows)
        if len(rows):
            found = MATCHER(box_iou(truth, anchors[i]))
        else:
            found = torch.full((len(anchors[i]),), Matcher.BELOW_LOW_THRESHOLD, device=predicted.device)
        own = found >= 0
        wanted = torch.zeros_like(logits[i])
        wanted[own, labels[found[own]]] = 1.0
        counted = found != Matcher.BETWEEN_THRESHOLDS
        share = max(int(own.sum()), 1)
        classes = classes + sigmoid_focal_loss(logits[i][counted], wanted[counted], reduction="sum") / share
        if own.any():
            goal = CODER.encode_single(truth[found[own]], anchors[i][own])
            boxes = boxes + F.l1_loss(offsets[i][own], goal, reduction="sum") / share
    return {"class": classes / len(predicted), "boxes": boxes / len(predicted)}


def in_pixels(rows: Tensor) -> Tensor:
    """Corners in pixels of the padded image, (n, 4), of (n, 9) targets."""
    return corners(rows[:, 1:5]) * rows[:, SIZE].flip(1).repeat(1, 2)


def in_padded(rows: Tensor) -> Tensor:
    """Corners in units of the padded image, (n, 4), of (n, 9) targets."""
    return in_pixels(rows) / rows[:, PADDED].flip(1).repeat(1, 2)
