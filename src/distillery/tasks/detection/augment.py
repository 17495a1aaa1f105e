"""IKD's augmentation, gated by the size of the objects: noise where they are small, a crop where they are not.

Liang et al., "Inconsistent knowledge distillation for object detection with data augmentation" (arXiv:2209.09841, ACM
MM 2023), as released: the paper speaks of frequencies; the code compares areas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distillery.config import Count, Positive, Share
from distillery.recipe.base import Augment

if TYPE_CHECKING:
    from torch import Tensor


class SizeGated(Augment):
    """`augmentation: {then: [{name: size_gated}]}` of detectors; their loader applies it."""

    class Config(Augment.Config):
        prob: Share = 0.3
        """That an image of small objects is replaced by a noisy one."""
        small_if: Literal["all", "any"] = "all"
        """Whether an image is one of small objects if all of them are small, or if any is; released code calls these
        strategies "2", which every configuration takes, and "1"."""
        small: Positive = 1024.0
        """Area in pixels below which an object is small."""
        measured: Literal["original", "seen"] = "original"
        """Whether areas are those in the image as it is (released), or as it is seen, resized."""
        crop: Share = 0.8
        """Least share of each side that a crop of another image keeps."""
        sd: Positive = 0.08
        """Standard deviation of the noise, of full brightness: severity 1 of the common corruptions."""
        until: Count = 1_000_000
        """Last epoch in which it acts; released: 16 of 24."""

    config: Config


def of_small(boxes: Tensor, small: float, truncated: bool, small_if: Literal["all", "any"] = "all") -> bool:
    """Whether all, or any, of (n, 4) corners enclose less than `small`; False if there are none.

    truncated: corners are cut to whole numbers before, as the rule for the noise has it; that for the crop does not.
    """
    at = boxes.trunc() if truncated else boxes
    less = (at[:, 2] - at[:, 0]) * (at[:, 3] - at[:, 1]) < small
    return bool(len(less)) and bool(less.all() if small_if == "all" else less.any())


def part_of(size: tuple[int, int], crop: float, shares: tuple[float, float]) -> tuple[int, int]:
    """Height and width of a crop, of uniform numbers `shares` between 0 and 1 (mmdetection's "relative_range")."""
    height, width = (int(side * (crop + u * (1 - crop)) + 0.5) for side, u in zip(size, shares, strict=True))
    return height, width
