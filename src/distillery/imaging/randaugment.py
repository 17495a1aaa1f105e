"""RandAugment (Cubuk et al., NeurIPS 2020) as timm and as torchvision read it: with other operations and strengths."""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.imaging.draw import Draw
from distillery.imaging.geometry import Colour
from distillery.imaging.policy import choose, interpolating, perform

LEVELS = 10.0  # of timm's magnitude


def of_timm(
    images: Tensor,
    draw: Draw,
    *,
    layers: int,
    magnitude: float,
    std: float,
    prob: float,
    increasing: bool,
    cubic: bool | None,
    fill: Colour,
) -> Tensor:
    """`rand-m{magnitude}-n{layers}-mstd{std}-inc{increasing}-p{prob}` of timm's auto_augment.py on (B, 3, H, W) uint8.

    `cubic` None: bicubic or bilinear by chance, for every operation anew.
    """
    for _ in range(layers):
        level = (magnitude + std * draw.normal()).clamp(0, LEVELS)
        sign = 1 - 2 * draw.below(2)
        kind = draw.uniform() < 0.5 if cubic is None else cubic
        acts = draw.uniform() < prob
        options = timm_arguments(level, sign, increasing)
        operation, argument = choose(options, draw.below(len(options)))
        images = perform(images, operation * acts, argument, interpolating(kind, fill))
    return images


def timm_arguments(level: Tensor, sign: Tensor, increasing: bool) -> dict[str, Tensor | float]:
    """What timm's 15 operations take at a level of 0 to 10, by the names of `policy`; level and sign are (B,)."""
    share = level / LEVELS
    bits, threshold = (share * 4).trunc(), (share * 256).trunc().clamp(max=256)
    factor = share * 1.8 + 0.1
    if increasing:
        bits, threshold, factor = 4 - bits, 256 - threshold, (1.0 + sign * (share * 0.9)).clamp(min=0.1)
    return {
        "autocontrast": 0.0,
        "equalise": 0.0,
        "invert": 0.0,
        "rotate": sign * (share * 30.0),
        "posterise": bits,
        "solarise": threshold,
        "solarise_add": (share * 110).trunc().clamp(max=128),
        "colour": factor,
        "contrast": factor,
        "brightness": factor,
        "sharpness": factor,
        "shear_x": sign * (share * 0.3),
        "shear_y": sign * (share * 0.3),
        "translate_x": sign * (share * 0.45),
        "translate_y": sign * (share * 0.45),
    }


def of_torchvision(images: Tensor, draw: Draw, *, operations: int, magnitude: int, bins: int) -> Tensor:
    """torchvision.transforms.RandAugment on (B, 3, H, W) uint8: the nearest pixel, black outside."""
    for _ in range(operations):
        sign = 1 - 2 * draw.below(2)
        options = torchvision_arguments(sign, magnitude, bins, *images.shape[-2:])
        images = perform(images, *choose(options, draw.below(len(options))))
    return images


def torchvision_arguments(
    sign: Tensor, magnitude: int, bins: int, height: int, width: int
) -> dict[str, Tensor | float]:
    """What torchvision's 14 operations take in bin `magnitude` of `bins`, by the names of `policy`; sign is (B,)."""

    def at(low: float, high: float) -> float:
        value: float = torch.linspace(low, high, bins)[magnitude].item()
        return value

    factor, shear = 1.0 + sign * at(0.0, 0.9), sign * at(0.0, 0.3)
    x, y = (-sign * (int(at(0.0, 150.0 / 331.0 * size)) / size) for size in (width, height))
    bits: float = (8 - (torch.arange(bins) / ((bins - 1) / 4)).round().int())[magnitude].item()
    return {
        "identity": 0.0,
        "shear_x": shear,
        "shear_y": shear,
        "translate_x": x,
        "translate_y": y,
        "rotate": sign * at(0.0, 30.0),
        "brightness": factor,
        "colour": factor,
        "contrast": factor,
        "sharpness": factor,
        "posterise": bits,
        "solarise": at(255.0, 0.0),
        "autocontrast": 0.0,
        "equalise": 0.0,
    }
