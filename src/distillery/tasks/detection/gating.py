"""IKD's augmentation put into a view."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from distillery.tasks.detection.augment import SizeGated, of_small, part_of
from distillery.tasks.detection.views import Gate, Size, View, corners_in


def gate(view: View, config: SizeGated.Config, boxes: Tensor, size: Size, seed: int) -> View:
    """The view with what the augmentation does to an image of that `size`, `boxes` being its (n, 4) corners in pixels.

    A crop in which no object would be left is not made; released code draws another image then.
    """
    random = torch.Generator().manual_seed(seed)
    scale = _enlarged(view, size) if config.measured == "seen" else 1.0
    small, u = config.small / scale, torch.rand(3, generator=random).tolist()
    if of_small(boxes, small, True, config.small_if) and u[0] < config.prob:
        return dataclasses.replace(view, gate=Gate(seed, config.sd, None))
    if not len(boxes) or of_small(boxes, small, False, config.small_if):
        return view
    high, wide = part_of(view.size, config.crop, (u[1], u[2]))
    top, left = (int(torch.randint(0, m + 1, (), generator=random)) for m in (view.size[0] - high, view.size[1] - wide))
    cut = dataclasses.replace(view, gate=Gate(None, config.sd, (top, left, high, wide)))
    return cut if corners_in(cut, size, boxes)[0].any() else view


def _enlarged(view: View, size: Size) -> float:
    """By what factor the view changes areas: by two, where a part is cut out between them."""
    before, part = (size, size) if view.before is None or view.part is None else (view.before, view.part[2:])
    return math.prod(b / s * v / p for s, b, p, v in zip(size, before, part, view.size, strict=True))
