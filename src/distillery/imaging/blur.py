"""Gaussian blur as Pillow's ImageFilter.GaussianBlur makes it: three box blurs along each axis, in whole numbers."""

from __future__ import annotations

import torch
from torch import Tensor

PASSES = 3
_UNIT = 1 << 24  # of Pillow's fixed-point weights


def gaussian_blur(images: Tensor, radius: Tensor, largest: float) -> Tensor:
    """Blur (B, C, H, W) uint8 images by their own radius, (B,) and none above `largest`, in pixels.

    The boxes have a fractional width, whose last pixels count in part (Gwosdek et al., SSVM 2011, equations 7 to 14).
    """
    box = _box(radius.float())
    whole = box.floor().long()
    full = (_UNIT / (box * 2 + 1)).long()
    part = (_UNIT - (whole * 2 + 1) * full) // 2
    reach = int(_box(torch.tensor(largest)).floor()) + 1
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    distance = offsets.abs() - whole[:, None]
    weights = torch.where(distance <= 0, full[:, None], torch.where(distance == 1, part[:, None], 0))
    values = images.long()
    for axis in (3, 2):
        size = images.shape[axis]
        places = torch.arange(-reach, size + reach, device=images.device).clamp(0, size - 1)
        for _ in range(PASSES):
            padded, total = values.index_select(axis, places), torch.full_like(values, _UNIT // 2)
            for first, weight in enumerate(weights.T):
                total.addcmul_(padded.narrow(axis, first, size), weight[:, None, None, None])
            values = total >> 24
    return values.to(torch.uint8)


def _box(radius: Tensor) -> Tensor:
    """The radius of the box whose repetition has the deviation `radius`."""
    variance = radius * radius / PASSES
    whole = (((12.0 * variance + 1.0).sqrt() - 1.0) / 2.0).floor()
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    return whole + rest / (6 * (variance - (whole + 1) * (whole + 1)))
