"""RandAugment (Cubuk et al., arXiv:1909.13719, NeurIPS 2020) in its two readings, timm's and torchvision's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from distillery.config import Count, Share, Weight
from distillery.recipe.base import Augment

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.imaging.draw import Draw

Level = Annotated[float, Field(ge=0, le=10)]
Grey = Annotated[int, Field(ge=0, le=255)]


class RandAugment(Augment):
    """timm's. The defaults are DeiT's `rand-m9-mstd0.5-inc1` with bicubic interpolation.

    Each of `layers` operations is chosen evenly, with replacement, of timm's 15, and done with probability `prob`.
    """

    class Config(Augment.Config):
        magnitude: Level = 9.0
        """m: 10 is the strongest."""
        std: Weight = 0.5
        """mstd: deviation of the magnitude, which stays between 0 and 10."""
        increasing: bool = True
        """inc: every operation grows stronger with the magnitude; false: some grow weaker."""
        layers: Count = 2
        """n: operations an image."""
        prob: Share = 0.5
        """p: of each operation."""
        interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
        """Of rotation, shear and translation."""
        fill: tuple[Grey, Grey, Grey] = (124, 116, 104)
        """Colour outside the image: ImageNet's mean; timm takes the mean that images are normalised by."""

    config: Config

    def __call__(self, images: Tensor, targets: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        from distillery.imaging.randaugment import of_timm

        c = self.config
        changed = of_timm(
            images,
            draw,
            layers=c.layers,
            magnitude=c.magnitude,
            std=c.std,
            prob=c.prob,
            increasing=c.increasing,
            cubic={"bicubic": True, "bilinear": False, "random": None}[c.interpolation],
            fill=c.fill,
        )
        return changed, targets

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.config.prob == 0:
            yield "prob", "0 switches it off: drop the entry"


class TorchvisionRandAugment(Augment):
    """torchvision's, with its defaults: 14 operations, the identity among them, all of one magnitude."""

    class Config(Augment.Config):
        operations: Count = 2
        """num_ops: operations an image, chosen evenly, with replacement."""
        magnitude: Annotated[int, Field(ge=0)] = 9
        """Number of the bin, counted from 0."""
        bins: Annotated[int, Field(ge=2)] = 31
        """num_magnitude_bins: the last one is the strongest."""

    config: Config

    def __call__(self, images: Tensor, targets: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        from distillery.imaging.randaugment import of_torchvision

        c = self.config
        return of_torchvision(images, draw, operations=c.operations, magnitude=c.magnitude, bins=c.bins), targets

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.config.magnitude >= self.config.bins:
            yield "magnitude", f"{self.config.magnitude} is none of {self.config.bins} bins, counted from 0"
