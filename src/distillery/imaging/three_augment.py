"""3-Augment: Touvron et al., "DeiT III: Revenge of the ViT" (arXiv:2204.07118, ECCV 2022), section 3.3."""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.imaging import colour
from distillery.imaging.blur import gaussian_blur
from distillery.imaging.draw import Draw
from distillery.imaging.policy import Rows, changed


def three_augment(images: Tensor, draw: Draw, threshold: int, radii: tuple[float, float]) -> Tensor:
    """Make every image grey, solarised or blurred, one of the three; (B, 3, H, W) uint8 in and out."""
    which, radius = draw.below(3), draw.uniform(low=radii[0], high=radii[1])

    def grey(rows: Rows) -> Tensor:
        return colour.grey(images[rows]).to(torch.uint8).expand_as(images[rows])

    def solarised(rows: Rows) -> Tensor:
        some = images[rows]
        return colour.look_up(
            some, torch.where(colour.levels(some) < threshold, colour.levels(some), colour.invert(some))
        )

    def blurred(rows: Rows) -> Tensor:
        return gaussian_blur(images[rows], radius[rows], radii[1])

    for number, change in enumerate((grey, solarised, blurred)):
        images = changed(images, which == number, change)
    return images
