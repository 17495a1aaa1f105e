"""Colour jitter as torchvision's ColorJitter does it on Pillow images, without a change of hue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distillery.config import Weight
from distillery.recipe.base import Augment

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.imaging.draw import Draw


class ColorJitter(Augment):
    """Brightness, contrast and saturation, in random order, each by a factor from [max(0, 1 - v), 1 + v).

    The defaults are those of DeiT III and VkD; DeiT's 0.4 has no effect there, since timm drops it where a RandAugment
    policy is set.
    """

    class Config(Augment.Config):
        brightness: Weight = 0.3
        contrast: Weight = 0.3
        saturation: Weight = 0.3

    config: Config

    def __call__(self, images: Tensor, targets: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        from distillery.imaging.policy import colour_jitter

        c = self.config
        return colour_jitter(images, draw, c.brightness, c.contrast, c.saturation), targets

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if not any(self.config.effective().values()):
            yield "brightness", "nothing is changed: drop the entry"
