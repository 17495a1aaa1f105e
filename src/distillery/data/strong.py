"""MLKD's strong view: crop and flip, two random operations, cutout. Not enumerable: it needs a live teacher.

The operations are those of Pillow, value for value, on whole uint8 batches on any device (one call per operation, not
per image). The strong view of an image is a pure function of (seed, epoch, image).
Source: the augmentation of the MLKD code (Jin et al., Multi-Level Logit Distillation, CVPR 2023), magnitudes as there:
below 1, brightness, colour, contrast and sharpness only darken or soften. What that code does on ImageNet is not
published: there the strong view is another random resized crop, and the rest as here (declared design).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distillery.data.views import Views, copied, seed_for
from distillery.imaging import colour
from distillery.imaging.geometry import Matrix, affine, rotation

FILL = (125, 123, 114)  # of the cutout, about the mean colour
LARGEST_CUT = 0.5  # of the width
Operation = Callable[[Tensor, Tensor], Tensor]  # (B, 3, H, W) uint8 and (B,) float64 magnitudes -> (B, 3, H, W) uint8


@dataclass(frozen=True, slots=True)
class Strengths:
    """What happens to the images of an epoch after crop and flip, (N, ...) by their places; on the CPU.

    Attributes:
        chosen: (N, 2) int64, rows of `OPERATIONS`.
        strength: (N, 2) float64 in [0, 1), where between its lowest and highest magnitude each works.
        cut: (N, 3) float64 in [0, 1): side and centre of the cutout.
    """

    chosen: Tensor
    strength: Tensor
    cut: Tensor

    @classmethod
    def drawn(cls, n: int, generator: torch.Generator) -> Strengths:
        chosen = torch.randint(len(OPERATIONS), (n, 2), generator=generator)
        strength = torch.rand((n, 2), generator=generator, dtype=torch.float64)
        return cls(chosen, strength, torch.rand((n, 3), generator=generator, dtype=torch.float64))

    def apply(self, images: Tensor, index: Tensor) -> Tensor:
        """Return (B, C, H, W) uint8 images on their device after two operations and the cutout.

        Args:
            images: (B, C, H, W) uint8, cropped and flipped. Grey ones are treated as three equal channels.
            index: (B,) int64 places, on the CPU: operations are sorted out there, without waiting for the device.
        """
        batch = images.expand(-1, 3, -1, -1).clone()
        chosen, strength = self.chosen[index], self.strength[index]
        for step in range(2):
            for number, (low, high, operation) in enumerate(OPERATIONS.values()):
                rows = (chosen[:, step] == number).nonzero().squeeze(1)
                magnitude = copied(low + (high - low) * strength[rows, step], images.device)
                rows = copied(rows, images.device)
                batch[rows] = operation(batch[rows], magnitude)
        return _cutout(batch, *copied(self.cut[index], images.device).T)[:, : images.shape[1]]


def strong_generator(seed: int, epoch: int) -> torch.Generator:
    """What the strong views of an epoch are drawn by."""
    return torch.Generator().manual_seed(seed_for(seed, epoch, "strong"))


def strong_views(images: Tensor, index: Tensor, seed: int, epoch: int, pad: int = 4, flip: bool = True) -> Tensor:
    """Return the strong views of images[index], in that order.

    Args:
        images: (N, C, H, W) uint8, the whole training set: image i's draw depends on its place in it.
        index: (B,) int64, on the CPU.

    Returns:
        (B, C, H, W) uint8 on the device of `images`.
    """
    n, views, generator = len(images), Views(pad, flip, images.shape[-2:]), strong_generator(seed, epoch)
    view = torch.randint(views.count, (n,), generator=generator)[index]
    strengths = Strengths.drawn(n, generator)
    batch = views.take(views.pad(images), *(copied(t, images.device) for t in (index, view)))
    return strengths.apply(batch, index)


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
