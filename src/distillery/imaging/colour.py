"""Colours of uint8 images as Pillow changes them, value for value, on whole batches.

There are two families: a mixture of the image with a degenerate one (`blend`), and a table of 256 values per image and
channel (`look_up`). Images are (B, 3, H, W) uint8, tables (B, 3 or 1, 256).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def no_levels(channels: int, scale: float) -> str:
    """Say why images of so many channels, of 0 to `scale`, cannot be changed as Pillow changes them; "" if they can."""
    if scale == 255 and channels in (1, 3):
        return ""
    return f"works on 1 or 3 channels of grey levels 0 to 255, and these images have {channels} of 0 to {scale:g}"


# --- mixtures with a degenerate image


def blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Go from the degenerate image (factor 0) to the image (1) and beyond, as ImageEnhance does; factor is (B,)."""
    base = degenerate.float()
    mixed = base + factor.float()[:, None, None, None] * (images.float() - base)
    return mixed.clamp(0, 255).to(torch.uint8)


def black(images: Tensor) -> Tensor:
    """What changes the brightness."""
    return torch.zeros_like(images)


def grey(images: Tensor) -> Tensor:
    """What changes the colour: luminance (ITU-R 601-2) in Pillow's fixed-point arithmetic, (B, 1, H, W) int32."""
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[:, None]


def mean_grey(images: Tensor) -> Tensor:
    """What changes the contrast: the mean luminance, rounded, (B, 1, 1, 1)."""
    pixels = images.shape[2] * images.shape[3]
    return (2 * grey(images).sum((1, 2, 3), keepdim=True) + pixels) // (2 * pixels)


def smooth(images: Tensor) -> Tensor:
    """What changes the sharpness: a 3x3 kernel of ones with 5 in the middle; the border stays as it is."""
    whole = images.int()
    inner = F.avg_pool2d(images.double(), 3, stride=1, divisor_override=1).int() + 4 * whole[:, :, 1:-1, 1:-1]
    degenerate = whole.clone()
    degenerate[:, :, 1:-1, 1:-1] = (2 * inner + 13) // 26
    return degenerate


# --- tables


def look_up(images: Tensor, table: Tensor) -> Tensor:
    """Map pixels through their image's and channel's table."""
    table = table.to(torch.uint8).expand(*images.shape[:2], 256)
    return table.gather(2, images.flatten(2).long()).view_as(images)


def levels(images: Tensor) -> Tensor:
    """The table that changes nothing, (256,) int64."""
    return torch.arange(256, device=images.device)


def histogram(images: Tensor) -> Tensor:
    """Count the pixels of each value, (B, C, 256) int64. It can be captured in a CUDA graph, which bincount cannot."""
    count = images.shape[0] * images.shape[1]
    offset = 256 * torch.arange(count, device=images.device)
    flat = (images.flatten(2).flatten(0, 1).long() + offset[:, None]).flatten()
    return flat.new_zeros(256 * count).scatter_add_(0, flat, torch.ones_like(flat)).view(*images.shape[:2], 256)


def autocontrast(images: Tensor) -> Tensor:
    """The table that stretches each channel to the full range; a channel of one value stays."""
    low, high = (f(2).double()[..., None] for f in (images.flatten(2).amin, images.flatten(2).amax))
    scale = torch.full_like(low, 255.0) / (high - low)  # a number on top would become a product with the reciprocal
    table = (levels(images) * scale + -low * scale).trunc().clamp(0, 255)
    return torch.where(high > low, table, levels(images))


def equalise(images: Tensor) -> Tensor:
    """The table that spreads each channel's values evenly; the most brilliant value does not count, and tiny images
    stay."""
    counts = histogram(images)
    brightest = images.flatten(2).amax(2).long()[..., None]
    step = (counts.sum(2, keepdim=True) - counts.gather(2, brightest)) // 255
    below = counts.cumsum(2) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, table, levels(images))


def invert(images: Tensor) -> Tensor:
    """The negative's table, (256,)."""
    return 255 - levels(images)


def posterise(images: Tensor, bits: Tensor) -> Tensor:
    """The tables that keep the uppermost int(bits) bits, (B, 1, 256); none of them: black, which Pillow 13 refuses."""
    lost = 8 - bits.long()[:, None, None]
    return (levels(images) >> lost) << lost


def solarise(images: Tensor, threshold: Tensor) -> Tensor:
    """The tables that invert the values that are not below the threshold, (B, 1, 256)."""
    return torch.where(levels(images) < threshold[:, None, None], levels(images), invert(images))


def solarise_add(images: Tensor, add: Tensor, threshold: int = 128) -> Tensor:
    """The tables that add a number to the values below the threshold, (B, 1, 256) (timm's SolarizeAdd)."""
    more = (levels(images) + add.long()[:, None, None]).clamp(max=255)
    return torch.where(levels(images) < threshold, more, levels(images))
