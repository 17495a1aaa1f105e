"""Training data that live on the device as uint8 tensors, seen through the enumerable views: CIFAR and its like.

What else a recipe does to images comes after the view, in the step: see `distillery.data.augment`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillery.data.augment import Augmentations
from distillery.data.loader import Cached, Samples
from distillery.data.precision import dtype_of, memory_format
from distillery.data.views import Views, copied, draw, order
from distillery.study.blocks import Recipe

if TYPE_CHECKING:
    from distillery.data.dataset import Dataset


class Resident:
    """A `Loader` of whole arrays: a batch is two gathers, which a CUDA graph may hold."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        self.data, self.device, self.count = data, data.train_images.device, len(data.train_labels)
        self.dtype, self.layout = dtype_of(recipe), memory_format(recipe)
        self.views = Views(recipe.augmentation.pad, recipe.augmentation.flip, data.train_images.shape[-2:])
        self.view_seed = recipe.augmentation.view_seed
        self.augment = Augmentations(recipe, data.num_classes, self.normalise, data.channels, data.scale)
        self.static = self.augment.capturable

    @cached_property
    def padded(self) -> Tensor:
        """The training images with their margin, which are only made where somebody trains."""
        return self.views.pad(self.data.train_images)

    def order(self, seed: int, epoch: int) -> Tensor:
        """(N,) int64: which images an epoch consists of, one after the other."""
        return order(seed, epoch, self.count)

    def epoch(self, seed: int, epoch: int, strong: bool = False, cached: Cached | None = None) -> ResidentEpoch:
        index = self.order(seed, epoch)
        seen = seed if self.view_seed is None else self.view_seed
        drawn = draw(seen, epoch, len(self.data.train_labels), self.views.count)[index]
        rows = cached(self.data.rows[index], drawn, epoch) if cached else []
        images = None
        if strong:
            from distillery.data.strong import strong_views

            images = strong_views(self.data.train_images, index, seen, epoch, self.views.margin, self.views.flip)
        device = self.device
        number = torch.full((), epoch, device=device)
        laid_out = copied(index, device), copied(drawn, device), [copied(r, device) for r in rows]
        return ResidentEpoch(self, seen, number, *laid_out, images)

    def splits(self) -> dict[str, ResidentSplit]:
        return {name: ResidentSplit(self, *of) for name, of in self.data.evaluation_splits().items()}

    def normalise(self, images: Tensor) -> Tensor:
        """Map uint8 (B, C, H, W) images to what networks train on."""
        return self.data.normalise(images, self.dtype).contiguous(memory_format=self.layout)


@dataclass
class ResidentEpoch:
    """One epoch laid out on the device.

    Attributes:
        seed, number: of the views, and () int64 of the epoch.
        index, view: (N,) int64: which image, in which of its views.
        cached: per teacher, the cached outputs of just these views, (N, columns); empty with live teachers.
        strong: (N, C, H, W) uint8 strongly augmented images, for methods that need a second view.
    """

    loader: Resident
    seed: int
    number: Tensor
    index: Tensor
    view: Tensor
    cached: list[Tensor] = field(default_factory=list)
    strong: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        return [self.number, self.index, self.view, *self.cached, *([] if self.strong is None else [self.strong])]

    def batch(self, rows: slice | Tensor) -> Samples:
        loader, index = self.loader, self.index[rows]
        cached = [c[rows] for c in self.cached]
        views = loader.views.take(loader.padded, index, self.view[rows])
        images, targets = loader.augment(views, loader.data.train_labels[index], index, self.seed, self.number)
        strong = None if self.strong is None else loader.normalise(self.strong[rows])
        return Samples(images, targets, index, cached, strong)


class ResidentSplit:
    """A `Split` of whole arrays."""

    def __init__(self, loader: Resident, images: Tensor, labels: Tensor) -> None:
        self.loader, self.images, self.labels, self.count = loader, images, labels, len(labels)

    def batches(self, size: int, rank: int = 0, ranks: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.count, size)[rank::ranks]:
            images = self.images[start : start + size]
            yield self.loader.data.normalise(images, self.loader.dtype), self.labels[start : start + size]
