"""One view of an image with boxes: a function of (seed, epoch, image), made by torchvision's transforms of both.

As in DETR and ViDT: mirrored or not; then either resized to one of the scales, or first resized to another one, a part
of it cut out, and that resized. Released is the same by Pillow; here it is torchvision's antialiased bilinear.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from distillery.data.views import seed_for
from distillery.tasks.detection.source import Cropped

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True)
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
        if self.noise is None:
            return image
        random = torch.Generator().manual_seed(self.noise)
        noisy = image / 255.0 + torch.randn(image.shape, generator=random) * self.sd
        return (noisy.clamp(0, 1) * 255).to(torch.uint8)


@dataclass(frozen=True, slots=True)
class View:
    """What becomes of an image.

    Attributes:
        flip: whether it is mirrored.
        before: the size to which it is resized before a part is cut out; None: nothing is cut out.
        part: top, left, height, width of that part.
        size: of the result, but for `gate`.
        gate: what IKD's augmentation does to it, None without.
    """

    flip: bool
    before: Size | None
    part: tuple[int, int, int, int] | None
    size: Size
    gate: Gate | None = None

    def clean(self) -> View:
        """The same geometry without noise."""
        return self if self.gate is None else dataclasses.replace(self, gate=dataclasses.replace(self.gate, noise=None))

    @property
    def final(self) -> Size:
        """Height and width of the result."""
        return self.size if self.gate is None or self.gate.part is None else self.gate.part[2:]


def fitted(size: Size, short: int, longest: int | None = None) -> Size:
    """The size whose short side is `short`, and less where the long one would exceed `longest`; as DETR rounds it.

    A very narrow image, which would have no pixel left between its long sides, has one.
    """
    height, width = size
    low, high = min(size), max(size)
    if longest is not None and high / low * short > longest:
        short = round(longest * low / high)
        if short == 0:
            return (longest, 1) if width < height else (1, longest)
    if low == short:
        return size
    return (int(short * height / width), short) if width < height else (short, int(short * width / height))


def draw(
    seed: int, epoch: int, row: int, size: Size, scales: tuple[int, ...], longest: int, crop: Cropped | None, flip: bool
) -> View:
    """Draw the view of an image of that size in an epoch of a run."""
    random = torch.Generator().manual_seed(seed_for(seed, epoch, row, "boxes"))

    def uniform() -> float:
        return torch.rand((), generator=random).item()

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    mirrored = uniform() < 0.5 and flip
    scale = scales[between(0, len(scales) - 1)]
    if crop is None or uniform() < 0.5:
        return View(mirrored, None, None, fitted(size, scale, longest))
    before = fitted(size, crop.resize[between(0, len(crop.resize) - 1)])
    high, wide = (between(min(crop.least, side), min(side, crop.most)) for side in before)
    part = (between(0, before[0] - high), between(0, before[1] - wide), high, wide)
    return View(mirrored, before, part, fitted((high, wide), scale, longest))


def apply(view: View, image: Tensor, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Make a view.

    Args:
        image: (3, H, W) uint8.
        labels, boxes: (n,) and (n, 4) corners in pixels.

    Returns:
        The image, and classes and corners of the objects that are left in it.
    """
    picture = image if view.gate is None else view.gate.noisy(image)
    seen: Tensor = _transformed(view, tv_tensors.Image(picture)).as_subclass(Tensor)
    kept, at = corners_in(view, (image.shape[-2], image.shape[-1]), boxes)
    return seen, labels[kept], at[kept]


def corners_in(view: View, size: Size, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Of (n, 4) corners in an image of that size: which are left in the view, (n,) bool, and where, (n, 4)."""
    boxed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)
    at: Tensor = _transformed(view, boxed).as_subclass(Tensor)
    return (at[:, 2] > at[:, 0]) & (at[:, 3] > at[:, 1]), at


def _transformed(view: View, x: Any) -> Any:
    if view.flip:
        x = F.horizontal_flip(x)
    if view.before is not None and view.part is not None:
        x = F.crop(F.resize(x, [*view.before], antialias=True), *view.part)
    x = F.resize(x, [*view.size], antialias=True)
    return x if view.gate is None or view.gate.part is None else F.crop(x, *view.gate.part)
