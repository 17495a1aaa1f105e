"""Affine maps of uint8 images as Pillow makes them: nearest pixel, bilinear and bicubic, a fill colour outside.

A matrix is six numbers a to f, each one number or (B,): output pixel (x, y) is fetched from (a x + b y + c,
d x + e y + f).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Matrix = Sequence[Tensor | float]
Colour = Sequence[int]
BLACK: Colour = (0,)


def affine(images: Tensor, matrix: Matrix, fill: Colour = BLACK) -> Tensor:
    """Fetch the nearest pixel, in Pillow's 16-bit fixed-point arithmetic; (B, C, H, W) uint8 in and out."""
    (height, width), blank = images.shape[-2:], images.new_zeros(len(images), dtype=torch.float64)
    a, b, c, d, e, f = (blank + value for value in matrix)

    def fixed(value: Tensor) -> Tensor:
        return (value * 65536.0 + 0.5).floor().long()[:, None, None]

    column, line = (torch.arange(size, device=images.device) for size in (width, height))
    x = (fixed(a) * column + fixed(b) * line[:, None] + fixed(c + (a + b) * 0.5)) >> 16
    y = (fixed(d) * column + fixed(e) * line[:, None] + fixed(f + (d + e) * 0.5)) >> 16
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    source = (y * width + x).clamp(0, height * width - 1)[:, None].expand_as(images).flatten(2)
    fetched = images.flatten(2).gather(2, source).view_as(images)
    return torch.where(inside[:, None], fetched, _colour(images, fill))


def affine_smooth(images: Tensor, matrix: Matrix, cubic: Tensor | bool, fill: Colour = BLACK) -> Tensor:
    """Interpolate between pixels, in float64 as Pillow does; (B, C, H, W) uint8 in and out.

    `cubic`, one value or (B,), chooses bicubic (a = -1) or bilinear. The result is cut to whole numbers, not rounded.
    """
    (height, width), blank = images.shape[-2:], images.new_zeros(len(images), 1, 1, dtype=torch.float64)
    a, b, c, d, e, f = (blank + (v[:, None, None] if isinstance(v, Tensor) else v) for v in matrix)
    column = torch.arange(width, device=images.device) + 0.5
    line = (torch.arange(height, device=images.device) + 0.5)[:, None]
    x, y = a * column + b * line + c, d * column + e * line + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = x.floor(), y.floor()
    cubic = cubic[:, None, None, None] if isinstance(cubic, Tensor) else cubic
    first = torch.arange(len(images), device=images.device)[:, None, None] * (height * width)
    flat = images.permute(0, 2, 3, 1).flatten(0, 2)  # all channels of a pixel at once, which is the fastest way here
    columns = [(left.long() + step).clamp(0, width - 1) for step in range(-1, 3)]
    lines = []
    for step in range(-1, 3):
        start = first + (top.long() + step).clamp(0, height - 1) * width
        values = [flat.index_select(0, (start + column).flatten()).view(*x.shape, -1).double() for column in columns]
        lines.append(_between(values, (x - left)[..., None], cubic))
    found = _between(lines, (y - top)[..., None], cubic).clamp(0, 255).to(torch.uint8).permute(0, 3, 1, 2)
    return torch.where(inside[:, None], found, _colour(images, fill)).contiguous()


def _between(values: list[Tensor], t: Tensor, cubic: Tensor | bool) -> Tensor:
    """Interpolate between four neighbours, at t behind the second; in Pillow's order, so that equal ones stay exact."""
    v1, v2, v3, v4 = values
    if cubic is False:
        return v2 + t * (v3 - v2)
    curved = v2 + t * (v3 - v1 + t * (2 * (v1 - v2) + v3 - v4 + t * (v2 - v1 - v3 + v4)))
    return curved if cubic is True else torch.where(cubic, curved, v2 + t * (v3 - v2))


def _colour(images: Tensor, fill: Colour) -> Tensor:
    """(C or 1, 1, 1), made on the device: a copy from the host would be no part of a captured graph."""
    parts = [torch.full((1, 1), level, dtype=torch.uint8, device=images.device) for level in fill]
    return torch.stack(parts)


def rotation(degrees: Tensor, height: int, width: int) -> list[Tensor | float]:
    """The matrix of a counter-clockwise turn about the centre; degrees are (B,) float64.

    Rounded and summed as Pillow does: some pixels' places are whole numbers but for that.
    """
    angle, y, x = -degrees.deg2rad(), height / 2, width / 2
    cos, sin = ((value * 1e15).round() / 1e15 for value in (angle.cos(), angle.sin()))
    return [cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y]
