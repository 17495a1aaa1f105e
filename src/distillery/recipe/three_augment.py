"""3-Augment (Touvron et al., DeiT III, arXiv:2204.07118, ECCV 2022): grey, solarised or blurred."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from distillery.config import Weight
from distillery.recipe.base import Augment

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.imaging.draw import Draw


class ThreeAugment(Augment):
    """One of the three for every image, evenly. DeiT III and VkD add `color_jitter` with its defaults after it."""

    class Config(Augment.Config):
        threshold: Annotated[int, Field(ge=0, le=256)] = 128
        """Values that are not below it are inverted."""
        radius: tuple[Weight, Weight] = (0.1, 2.0)
        """Smallest and largest radius of the Gaussian blur, in pixels."""

    config: Config

    def __call__(self, images: Tensor, targets: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        from distillery.imaging.three_augment import three_augment

        return three_augment(images, draw, self.config.threshold, self.config.radius), targets

    def contradictions(self) -> Iterator[tuple[str, str]]:
        low, high = self.config.radius
        if low > high:
            yield "radius", f"the smallest, {low:g}, is above the largest, {high:g}"
