"""Mixup, CutMix, and timm's choice of one of them for every batch: labels become soft targets.

They mix normalised images, after random erasing, as the released DeiT and VkD do (timm's own loader with its collating
mixup erases after mixing). The teacher sees the mixed images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from distillery.config import Positive, Share
from distillery.recipe.base import Augment

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.imaging.draw import Draw


class Mixing(Augment):
    """Mixes images and targets with those of another image of the batch: i with B - 1 - i. Override `kinds`."""

    class Config(Augment.Config):
        prob: Share = 1.0
        """That a batch (or a pair, or an image) is mixed at all."""
        mode: Literal["batch", "pair", "elem"] = "batch"
        """What shares its draw: the batch; an image and its partner; nothing."""

    config: Config
    stage = "batch"
    mixes = True

    def kinds(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw shares that stay of the image, float64, and whether a rectangle is cut or all is blended."""
        raise TypeError(f"{type(self).__name__} does not define this")

    def __call__(self, images: Tensor, targets: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        import torch

        from distillery.imaging.mixing import cut, mixed

        draw = {"batch": draw.first, "pair": draw.pairs, "elem": draw.each}[self.config.mode]()
        acts = draw.uniform() < self.config.prob
        share, cuts = self.kinds(draw)
        share = torch.where(acts, share, 1.0)
        y, x = draw.below(images.shape[2]), draw.below(images.shape[3])
        with_rectangle, stayed = cut(images, share, y, x)
        images = torch.where(cuts.view(-1, 1, 1, 1), with_rectangle, mixed(images, share))
        return images, mixed(targets, torch.where(cuts, stayed, share))

    def contradictions(self) -> Iterator[tuple[str, str]]:
        if self.config.prob == 0:
            yield "prob", "0 switches it off: drop the entry"


class Mixup(Mixing):
    """Blends two images (Zhang et al., "mixup", arXiv:1710.09412, ICLR 2018)."""

    class Config(Mixing.Config):
        alpha: Positive = 0.8
        """The share of the image comes from Beta(alpha, alpha)."""

    config: Config

    def kinds(self, draw: Draw) -> tuple[Tensor, Tensor]:
        share = draw.beta(self.config.alpha)
        return share, share < 0


class CutMix(Mixing):
    """Puts a rectangle of another image in (Yun et al., "CutMix", arXiv:1905.04899, ICCV 2019).

    The targets are mixed by the area that the rectangle has within the image.
    """

    class Config(Mixing.Config):
        alpha: Positive = 1.0
        """The share that stays comes from Beta(alpha, alpha)."""

    config: Config

    def kinds(self, draw: Draw) -> tuple[Tensor, Tensor]:
        share = draw.beta(self.config.alpha)
        return share, share >= 0


class MixupCutMix(Mixing):
    """timm's Mixup: one of the two for every batch. The defaults are those of DeiT and of VkD."""

    class Config(Mixing.Config):
        mixup_alpha: Positive = 0.8
        """The share of the image comes from Beta(alpha, alpha) where it blends."""
        cutmix_alpha: Positive = 1.0
        """The same where it cuts."""
        switch_prob: Share = 0.5
        """Of cutting, where it mixes at all."""

    config: Config

    def kinds(self, draw: Draw) -> tuple[Tensor, Tensor]:
        import torch

        cuts = draw.uniform() < self.config.switch_prob
        blend, cut = draw.beta(self.config.mixup_alpha), draw.beta(self.config.cutmix_alpha)
        return torch.where(cuts, cut, blend), cuts

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        never = {0.0: "never cuts: name mixup", 1.0: "always cuts: name cutmix"}
        if self.config.switch_prob in never:
            yield "switch_prob", f"{self.config.switch_prob:g} {never[self.config.switch_prob]}"
