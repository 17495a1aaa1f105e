"""DiffAugment: Zhao et al. (arXiv:2006.10738, NeurIPS 2020), changes to all that a discriminator is shown.

The generator learns through them: they are differentiable in the images. Their numbers come from a `Draw`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distillery.imaging.draw import Draw


def augment(images: Tensor, draw: Draw, policy: tuple[str, ...]) -> Tensor:
    """Change (N, C, H, W) images one by one, by the entries of `policy`: color, translation, cutout."""
    for name in policy:
        images = POLICIES[name](images, draw)
    return images


def color(images: Tensor, draw: Draw) -> Tensor:
    """Brightness by [-0.5, 0.5), saturation times [0, 2), contrast times [0.5, 1.5), about the image's own means."""
    shift, saturation, contrast = (draw.uniform(1, 1, 1).to(images.dtype) for _ in range(3))
    images = images + (shift - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (saturation * 2) + grey
    level = images.mean((1, 2, 3), keepdim=True)
    return (images - level) * (contrast + 0.5) + level


def translation(images: Tensor, draw: Draw) -> Tensor:
    """Move by up to an eighth of the sides, each whole number alike; zeros come in.

    By products with matrices of zeros and ones: exact, and with a gradient that is deterministic on every device.
    """
    matrices = []
    for side in images.shape[-2:]:
        reach = side // 8
        by = draw.below(2 * reach + 1) - reach
        place = torch.arange(side, device=images.device)
        matrices.append((place[None] == (place[:, None] + by[:, None, None])).to(images.dtype)[:, None])
    down, across = matrices
    return down @ images @ across.transpose(2, 3)


def cutout(images: Tensor, draw: Draw) -> Tensor:
    """Zero a square of half the sides, about a place drawn evenly; what of it lies outside is lost."""
    inside = []
    for side in images.shape[-2:]:
        size = side // 2
        first = draw.below(side + 1 - size % 2) - size // 2
        place = torch.arange(side, device=images.device)
        inside.append((place >= first[:, None]) & (place < first[:, None] + size))
    rows, columns = inside
    return torch.where((rows[:, :, None] & columns[:, None])[:, None], 0.0, images)


POLICIES: dict[str, Callable[[Tensor, Draw], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}
