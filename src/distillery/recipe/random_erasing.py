"""Random erasing (Zhong et al., arXiv:1708.04896, AAAI 2020) as timm does it: on normalised images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from distillery.config import Count, Positive, Share
from distillery.recipe.base import Augment

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.imaging.draw import Draw


class RandomErasing(Augment):
    """Fills rectangles with noise. The defaults are DeiT's: `reprob 0.25, remode pixel, recount 1`."""

    class Config(Augment.Config):
        prob: Share = 0.25
        """Share of the images that lose something."""
        mode: Literal["pixel", "rand", "const"] = "pixel"
        """Normal noise, one normal colour a rectangle, or zero (the mean colour)."""
        count: tuple[Count, Count] = (1, 1)
        """Fewest and most rectangles in an image, which share the area."""
        area: tuple[Share, Share] = (0.02, 1 / 3)
        """Smallest and largest share of the image."""
        aspect: tuple[Positive, Positive] = (0.3, 1 / 0.3)
        """Smallest and largest height over width."""

    config: Config
    stage = "batch"

    def __call__(self, images: Tensor, targets: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        from distillery.imaging.erasing import random_erasing

        c = self.config
        erased = random_erasing(images, draw, prob=c.prob, mode=c.mode, count=c.count, area=c.area, aspect=c.aspect)
        return erased, targets

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.config.prob == 0:
            yield "prob", "0 switches it off: drop the entry"
        for key in ("count", "area", "aspect"):
            low, high = getattr(self.config, key)
            if low > high:
                yield key, f"the smallest, {low:g}, is above the largest, {high:g}"
        if self.config.area[1] == 0:
            yield "area", "0 erases nothing: drop the entry"
