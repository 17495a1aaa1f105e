"""MLKD's strong view: crop and flip, two random operations, cutout. Not enumerable: it needs a live teacher.

The operations are those of Pillow, value for value, on whole uint8 batches on any device (one call per operation, not
per image). The strong view of an image is a pure function of (seed, epoch, image).
Source: the augmentation of the MLKD code (Jin et al., Multi-Level Logit Distillation, CVPR 2023), magnitudes as there:
below 1, brightness, colour, contrast and sharpness only darken or soften.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distillery.data.views import Views, copied, seed_for
from distillery.imaging import colour
from distillery.imaging.geometry import Matrix, affine, rotation

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


def _mixture(degenerate: Callable[[Tensor], Tensor]) -> Operation:
    return lambda images, magnitude: colour.blend(degenerate(images), images, magnitude)


def _stretched(images: Tensor, magnitude: Tensor) -> Tensor:
    return colour.look_up(images, colour.autocontrast(images))


def _equalised(images: Tensor, magnitude: Tensor) -> Tensor:
    return colour.look_up(images, colour.equalise(images))


def _posterised(images: Tensor, magnitude: Tensor) -> Tensor:
    return colour.look_up(images, colour.posterise(images, magnitude))


def _solarised(images: Tensor, magnitude: Tensor) -> Tensor:
    return colour.look_up(images, colour.solarise(images, magnitude))


def _mapped(matrix: Callable[[Tensor, int, int], Matrix]) -> Operation:
    return lambda images, magnitude: affine(images, matrix(magnitude, *images.shape[-2:]))


# Name: lowest and highest magnitude, operation. Two are drawn with replacement, each magnitude uniformly.
OPERATIONS: dict[str, tuple[float, float, Operation]] = {
    "autocontrast": (0, 1, _stretched),
    "brightness": (0.05, 0.95, _mixture(colour.black)),
    "colour": (0.05, 0.95, _mixture(colour.grey)),
    "contrast": (0.05, 0.95, _mixture(colour.mean_grey)),
    "equalise": (0, 1, _equalised),
    "identity": (0, 1, lambda images, magnitude: images),
    "posterise": (4, 8, _posterised),
    "rotate": (-30, 30, _mapped(rotation)),
    "sharpness": (0.05, 0.95, _mixture(colour.smooth)),
    "shear_x": (-0.3, 0.3, _mapped(lambda v, height, width: [1.0, v, 0.0, 0.0, 1.0, 0.0])),
    "shear_y": (-0.3, 0.3, _mapped(lambda v, height, width: [1.0, 0.0, 0.0, v, 1.0, 0.0])),
    "solarise": (0, 256, _solarised),
    "translate_x": (-0.3, 0.3, _mapped(lambda v, height, width: [1.0, 0.0, v * width, 0.0, 1.0, 0.0])),
    "translate_y": (-0.3, 0.3, _mapped(lambda v, height, width: [1.0, 0.0, 0.0, 0.0, 1.0, v * height])),
}
