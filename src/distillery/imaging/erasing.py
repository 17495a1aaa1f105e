"""Random erasing: Zhong et al. (arXiv:1708.04896, AAAI 2020), as timm's random_erasing.py does it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distillery.imaging.draw import Draw
from distillery.imaging.policy import Rows, changed

TRIES = 10  # for a rectangle that is smaller than the image


def random_erasing(
    images: Tensor,
    draw: Draw,
    *,
    prob: float,
    mode: str,
    count: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Tensor:
    """Erase rectangles in a share `prob` of the (B, C, H, W) normalised images.

    Args:
        mode: "pixel", normal noise of deviation 1; "rand", one normal colour a rectangle; "const", zero.
        count: fewest and most rectangles in one image.
        area: smallest and largest share of the image that all of them together have.
        aspect: smallest and largest height over width; drawn evenly in its logarithm.
    """
    keep, number = draw.uniform() < prob, count[0] + draw.below(count[1] - count[0] + 1)
    boxes = rectangles(draw, number, count[1], images.shape[-2:], area, aspect)
    noise = draw.each()
    dtype = torch.promote_types(images.dtype, torch.float32)

    def erased(rows: Rows) -> Tensor:
        some, source = images[rows], noise.rows(rows)
        shape = {"pixel": some.shape[1:], "rand": (count[1], some.shape[1], 1, 1), "const": ()}[mode]
        filling = source.normal(*shape, dtype=dtype).to(images.dtype) if shape else torch.zeros_like(some)
        for box in range(count[1]):
            inside = boxes[rows, box][:, None]
            some = torch.where(inside, filling[:, box] if mode == "rand" else filling, some)
        return some

    return changed(images, keep, erased)


def rectangles(
    draw: Draw,
    number: Tensor,
    most: int,
    size: tuple[int, int] | torch.Size,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Tensor:
    """Masks of the rectangles, (B, most, H, W) boolean; empty where none of ten was smaller than the image."""
    height, width = size
    share = draw.uniform(most, TRIES, low=area[0], high=area[1]) * (height * width) / number[:, None, None]
    ratio = draw.uniform(most, TRIES, low=math.log(aspect[0]), high=math.log(aspect[1])).exp()
    tall, wide = (share * ratio).sqrt().round(), (share / ratio).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(2, keepdim=True)
    h, w = (sides.gather(2, first).squeeze(2) for sides in (tall, wide))
    top, left = draw.below(height - h + 1, most), draw.below(width - w + 1, most)
    taken = fits.any(2) & (torch.arange(most, device=number.device) < number[:, None])
    line, column = (torch.arange(n, device=number.device) for n in (height, width))
    rows = (line >= top[..., None]) & (line < (top + h)[..., None])
    columns = (column >= left[..., None]) & (column < (left + w)[..., None])
    return rows[..., None] & columns[..., None, :] & taken[..., None, None]
