"""IKD's augmentation, gated by the size of the objects: noise where all are small, a crop where one is large.

Liang et al., "Inconsistent knowledge distillation for object detection with data augmentation" (arXiv:2209.09841, ACM MM
2023), as released (strategy "2" of all configurations): the paper speaks of frequencies; the code compares areas.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from distillery.config import Count, Positive, Share
from distillery.recipe.base import Augment

if TYPE_CHECKING:
    from torch import Tensor

    from distillery.tasks.detection.views import View


class SizeGated(Augment):
    """`augmentation: {then: [{name: size_gated}]}` of detectors; their loader applies it."""

    class Config(Augment.Config):
        prob: Share = 0.3
        """That an image of small objects alone is replaced by a noisy one."""
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


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """What happens to one image.

    Attributes:
        noise: seed of the noise, None without.
        sd: of the noise, of full brightness.
        part: top, left, height, width of what is kept of the resized image, None for all.
    """

    noise: int | None
    sd: float
    part: tuple[int, int, int, int] | None

    def noisy(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 with Gaussian noise in it, or as it is."""
        import torch

        if self.noise is None:
            return image
        random = torch.Generator().manual_seed(self.noise)
        noisy = image / 255.0 + torch.randn(image.shape, generator=random) * self.sd
        return (noisy.clamp(0, 1) * 255).to(torch.uint8)


def all_small(boxes: Tensor, small: float, truncated: bool) -> bool:
    """Whether every one of (n, 4) corners encloses less than `small`; False if there are none.

    truncated: corners are cut to whole numbers before, as the rule for the noise has it; that for the crop does not.
    """
    at = boxes.trunc() if truncated else boxes
    areas = (at[:, 2] - at[:, 0]) * (at[:, 3] - at[:, 1])
    return bool(len(areas)) and bool((areas < small).all())


def part_of(size: tuple[int, int], crop: float, shares: tuple[float, float]) -> tuple[int, int]:
    """Height and width of a crop, of uniform numbers `shares` between 0 and 1 (mmdetection's "relative_range")."""
    height, width = (int(side * (crop + u * (1 - crop)) + 0.5) for side, u in zip(size, shares, strict=True))
    return height, width


def gate(view: View, config: Any, boxes: Tensor, size: tuple[int, int], seed: int) -> View:
    """The view with what the augmentation does to an image of that `size`, `boxes` being its (n, 4) corners in pixels.

    A crop in which no object would be left is not made; released code draws another image then.
    """
    import torch

    from distillery.tasks.detection.views import corners_in

    random = torch.Generator().manual_seed(seed)
    scale = (view.size[0] / size[0]) * (view.size[1] / size[1]) if config.measured == "seen" else 1.0
    small, u = config.small / scale, torch.rand(3, generator=random).tolist()
    if all_small(boxes, small, truncated=True) and u[0] < config.prob:
        return dataclasses.replace(view, gate=Gate(seed, config.sd, None))
    if not len(boxes) or all_small(boxes, small, truncated=False):
        return view
    high, wide = part_of(view.size, config.crop, (u[1], u[2]))
    top, left = (int(torch.randint(0, m + 1, (), generator=random)) for m in (view.size[0] - high, view.size[1] - wide))
    cut = dataclasses.replace(view, gate=Gate(None, config.sd, (top, left, high, wide)))
    return cut if corners_in(cut, size, boxes)[0].any() else view
