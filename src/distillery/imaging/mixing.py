"""Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019) of a batch with itself in reverse order, as timm
does both. Image i meets image B - 1 - i; with an odd number of images the middle one meets itself."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_targets(labels: Tensor, classes: int, smoothing: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B,) int64 classes as (B, classes) probabilities: 1 - smoothing for the label, the rest for any class alike."""
    off = smoothing / classes
    low, high = (torch.full((), v, dtype=dtype, device=labels.device) for v in (off, 1.0 - smoothing + off))
    return torch.where(labels[:, None] == torch.arange(classes, device=labels.device), high, low)


def mixed(values: Tensor, share: Tensor) -> Tensor:
    """Take `share` of each row and the rest of its partner; (B, ...) values, (B,) or (1,) shares."""
    share = share.view(-1, *(1,) * (values.dim() - 1))
    return values * share.to(values.dtype) + values.flip(0) * (1.0 - share).to(values.dtype)


def cut(images: Tensor, share: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Put a rectangle of the partner into each image.

    Args:
        images: (B, C, H, W).
        share: (B,) or (1,) float64 of the image that should stay.
        y, x: (B,) or (1,) int64, the rectangle's centre; what reaches out of the image is cut off.

    Returns:
        The images, and the share that did stay.
    """
    inside, ratio = [], (1.0 - share).sqrt()
    for centre, size in ((y, images.shape[2]), (x, images.shape[3])):
        side = (size * ratio).floor().long()
        first, last = (centre - side // 2).clamp(0, size), (centre + (side + 1) // 2).clamp(0, size)
        line = torch.arange(size, device=images.device)
        inside.append((line >= first[:, None]) & (line < last[:, None]))
    box = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    stayed = 1.0 - box.double().mean((1, 2, 3))
    return torch.where(box, images.flip(0), images), stayed
