"""MLKD's strong view: crop and flip, two random operations, cutout. Not enumerable: it needs a live teacher.

The operations are those of Pillow, value for value, on whole uint8 batches on any device (one call per operation, not
per image). The strong view of an image is a pure function of (seed, epoch, image).
Source: the augmentation of the MLKD code (Jin et al., Multi-Level Logit Distillation, CVPR 2023), magnitudes as there:
below 1, brightness, colour, contrast and sharpness only darken or soften.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.data.views import Views, copied, seed_for

FILL = (125, 123, 114)  # of the cutout, about the mean colour
LARGEST_CUT = 0.5  # of the width
Operation = Callable[[Tensor, Tensor], Tensor]  # (B, 3, H, W) uint8 and (B,) float64 magnitudes -> (B, 3, H, W) uint8


def strong_views(images: Tensor, index: Tensor, seed: int, epoch: int, pad: int = 4, flip: bool = True) -> Tensor:
    """Return the strong views of images[index], in that order.

    Args:
        images: (N, C, H, W) uint8, the whole training set: image i's draw depends on its place in it. Grey images
            (C = 1) are treated as colour images with three equal channels.
        index: (B,) int64, on the CPU: the operations are sorted out there, without waiting for the device.

    Returns:
        (B, C, H, W) uint8 on the device of `images`.
    """
    n, views = len(images), Views(pad, flip, images.shape[-2:])
    generator = torch.Generator().manual_seed(seed_for(seed, epoch, "strong"))
    view = torch.randint(views.count, (n,), generator=generator)[index]
    chosen = torch.randint(len(OPERATIONS), (n, 2), generator=generator)[index]
    strength = torch.rand((n, 2), generator=generator, dtype=torch.float64)[index]
    cut = torch.rand((n, 3), generator=generator, dtype=torch.float64)[index]
    index, view, cut = (copied(t, images.device) for t in (index, view, cut))
    batch = views.take(views.pad(images), index, view).expand(-1, 3, -1, -1).clone()
    for step in range(2):
        for number, (low, high, operation) in enumerate(OPERATIONS.values()):
            rows = (chosen[:, step] == number).nonzero().squeeze(1)
            magnitude = copied(low + (high - low) * strength[rows, step], images.device)
            rows = copied(rows, images.device)
            batch[rows] = operation(batch[rows], magnitude)
    return _cutout(batch, *cut.T)[:, : images.shape[1]]


def _cutout(images: Tensor, side: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Fill a square round (x, y), all three (B,) in [0, 1): drawn as Pillow does, last row and column included."""
    side = LARGEST_CUT * images.shape[-1] * side
    inside = []
    for centre, size in zip((y, x), images.shape[-2:], strict=True):
        first = (centre * size - side / 2).clamp(min=0).floor()
        last = (first + side).clamp(max=size).floor()
        line = torch.arange(size, device=images.device)
        inside.append((line >= first[:, None]) & (line <= last[:, None]))
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(hidden, images.new_tensor(FILL)[:, None, None], images)


# --- colour: a mixture with a degenerate image


def _mix(degenerate: Tensor, images: Tensor, magnitude: Tensor) -> Tensor:
    base = degenerate.float()
    return (base + magnitude.float()[:, None, None, None] * (images.float() - base)).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Luminance (ITU-R 601-2) in Pillow's fixed-point arithmetic, (B, 1, H, W) int32."""
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[:, None]


def _brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    return _mix(torch.zeros_like(images), images, magnitude)


def _colour(images: Tensor, magnitude: Tensor) -> Tensor:
    return _mix(_grey(images), images, magnitude)


def _contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    pixels = images.shape[2] * images.shape[3]
    mean = (2 * _grey(images).sum((1, 2, 3), keepdim=True) + pixels) // (2 * pixels)
    return _mix(mean, images, magnitude)


def _sharpness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Mix with the smoothed image (a 3x3 kernel of ones with 5 in the middle); the border stays as it is."""
    whole = images.int()
    smooth = F.avg_pool2d(images.double(), 3, stride=1, divisor_override=1).int() + 4 * whole[:, :, 1:-1, 1:-1]
    degenerate = whole.clone()
    degenerate[:, :, 1:-1, 1:-1] = (2 * smooth + 13) // 26
    return _mix(degenerate, images, magnitude)


# --- colour: a table of 256 values per image and channel


def _look_up(images: Tensor, table: Tensor) -> Tensor:
    """Map pixels through (B, C or 1, 256) tables."""
    table = table.to(torch.uint8).expand(*images.shape[:2], 256)
    return table.gather(2, images.flatten(2).long()).view_as(images)


def _levels(images: Tensor) -> Tensor:
    return torch.arange(256, device=images.device)


def _histogram(images: Tensor) -> Tensor:
    """Count the pixels of each value, (B, C, 256) int64."""
    count = images.shape[0] * images.shape[1]
    offset = 256 * torch.arange(count, device=images.device)
    flat = images.flatten(2).flatten(0, 1).long() + offset[:, None]
    return flat.flatten().bincount(minlength=256 * count).view(*images.shape[:2], 256)


def _autocontrast(images: Tensor, magnitude: Tensor) -> Tensor:
    """Stretch each channel to the full range; a channel of one value stays."""
    low, high = (f(2).double()[..., None] for f in (images.flatten(2).amin, images.flatten(2).amax))
    scale = torch.full_like(low, 255.0) / (high - low)  # a number on top would become a product with the reciprocal
    table = (_levels(images) * scale + -low * scale).trunc().clamp(0, 255)
    return _look_up(images, torch.where(high > low, table, _levels(images)))


def _equalise(images: Tensor, magnitude: Tensor) -> Tensor:
    """Spread each channel's values evenly; the most brilliant value does not count, and tiny images stay."""
    counts = _histogram(images)
    brightest = images.flatten(2).amax(2).long()[..., None]
    step = (counts.sum(2, keepdim=True) - counts.gather(2, brightest)) // 255
    below = counts.cumsum(2) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return _look_up(images, torch.where(step > 0, table, _levels(images)))


def _posterise(images: Tensor, magnitude: Tensor) -> Tensor:
    """Keep the uppermost int(magnitude) bits."""
    bits = magnitude.long()[:, None, None, None]
    return ((images >> (8 - bits)) << (8 - bits)).to(torch.uint8)


def _solarise(images: Tensor, magnitude: Tensor) -> Tensor:
    """Invert the values that are not below the magnitude."""
    return torch.where(images < magnitude[:, None, None, None], images, 255 - images)


# --- geometry: nearest pixel, zeros outside


def _affine(images: Tensor, matrix: list[Tensor | float]) -> Tensor:
    """Fetch output pixel (x, y) from (a x + b y + c, d x + e y + f), as Pillow's 16-bit fixed-point arithmetic does."""
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
    return fetched * inside[:, None]


def _rotate(images: Tensor, magnitude: Tensor) -> Tensor:
    """Turn counter-clockwise about the centre, in degrees."""
    angle, (y, x) = -magnitude.deg2rad(), (side / 2 for side in images.shape[-2:])
    cos, sin = angle.cos(), angle.sin()
    return _affine(images, [cos, sin, x - x * cos - y * sin, -sin, cos, y + x * sin - y * cos])


def _shear_x(images: Tensor, magnitude: Tensor) -> Tensor:
    return _affine(images, [1.0, magnitude, 0.0, 0.0, 1.0, 0.0])


def _shear_y(images: Tensor, magnitude: Tensor) -> Tensor:
    return _affine(images, [1.0, 0.0, 0.0, magnitude, 1.0, 0.0])


def _translate_x(images: Tensor, magnitude: Tensor) -> Tensor:
    return _affine(images, [1.0, 0.0, magnitude * images.shape[-1], 0.0, 1.0, 0.0])


def _translate_y(images: Tensor, magnitude: Tensor) -> Tensor:
    return _affine(images, [1.0, 0.0, 0.0, 0.0, 1.0, magnitude * images.shape[-2]])


# Name: lowest and highest magnitude, operation. Two are drawn with replacement, each magnitude uniformly.
OPERATIONS: dict[str, tuple[float, float, Operation]] = {
    "autocontrast": (0, 1, _autocontrast),
    "brightness": (0.05, 0.95, _brightness),
    "colour": (0.05, 0.95, _colour),
    "contrast": (0.05, 0.95, _contrast),
    "equalise": (0, 1, _equalise),
    "identity": (0, 1, lambda images, magnitude: images),
    "posterise": (4, 8, _posterise),
    "rotate": (-30, 30, _rotate),
    "sharpness": (0.05, 0.95, _sharpness),
    "shear_x": (-0.3, 0.3, _shear_x),
    "shear_y": (-0.3, 0.3, _shear_y),
    "solarise": (0, 256, _solarise),
    "translate_x": (-0.3, 0.3, _translate_x),
    "translate_y": (-0.3, 0.3, _translate_y),
}
