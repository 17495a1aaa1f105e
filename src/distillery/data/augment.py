"""A recipe's augmentations on one batch: from uint8 images and classes to normalised images and targets.

The order is that of the released DeiT and VkD: crop and flip, entries of stage "image" on grey levels, normalisation,
entries of stage "batch". What an image gets depends on (seed, epoch, image) alone, and what a batch shares on its first
image: it is the same for every method, and after a resume.

Where several processes share a batch, each mixes its own part of it, as timm's do: there is no other image at hand.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distillery.data.views import seed_for
from distillery.errors import DistilleryError
from distillery.imaging.colour import no_levels
from distillery.imaging.draw import Draw
from distillery.imaging.mixing import soft_targets
from distillery.recipe.base import Augment
from distillery.study.blocks import Recipe


class Augmentations:
    """What a recipe does to images after crop and flip.

    Args:
        recipe: its `augmentation.then`, and the label smoothing that soft targets take over from the cross-entropy.
        classes: C.
        normalise: uint8 images -> normalised images.
        channels, scale: of the images; operations on grey levels want 1 or 3 channels, and values up to 255.

    Raises DistilleryError if the images are not what an entry can work on.
    """

    def __init__(
        self, recipe: Recipe, classes: int, normalise: Callable[[Tensor], Tensor], channels: int = 3, scale: float = 255
    ) -> None:
        self.parts: list[tuple[str, Augment]] = [
            (named.name, part) for named, part in zip(recipe.augmentation.then, recipe.augmentations(), strict=True)
        ]
        self.classes, self.normalise, self.smoothing = classes, normalise, recipe.label_smoothing
        for name, part in self.parts:
            if part.stage == "image" and (why := no_levels(channels, scale)):
                raise DistilleryError(f"recipe.augmentation: {name} {why}: drop it")

    @property
    def soft(self) -> bool:
        """Whether the targets become soft, (B, C)."""
        return any(part.mixes for _, part in self.parts)

    @property
    def capturable(self) -> bool:
        """Whether a captured CUDA graph can replay them; with the epoch and the images in tensors that it reads."""
        return all(part.capturable for _, part in self.parts)

    def __call__(
        self, images: Tensor, targets: Tensor, index: Tensor, seed: int, epoch: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Augment one batch.

        Args:
            images: (B, C, H, W) uint8, cropped and flipped. Grey ones are treated as three equal channels.
            targets: (B,) int64 classes.
            index: (B,) int64 positions in the training set, on the device of the images.
            epoch: a number, or a () tensor of it on that device.

        Returns:
            Normalised images, and the targets: as they came, or (B, C) in float32 if something mixes; float64 with
            images in float64.
        """
        channels, parts = images.shape[1], self.parts if len(images) else []  # one of several processes may have none
        for name, part in parts:
            if part.stage == "image":
                colour = images.expand(-1, 3, -1, -1).contiguous()
                images, targets = part(colour, targets, _draw(name, index, seed, epoch))
        images = self.normalise(images[:, :channels])
        if self.soft:
            dtype = torch.promote_types(images.dtype, torch.float32)
            targets = soft_targets(targets, self.classes, self.smoothing, dtype)
        for name, part in parts:
            if part.stage == "batch":
                images, targets = part(images, targets, _draw(name, index, seed, epoch))
        return images, targets


def _draw(name: str, index: Tensor, seed: int, epoch: int | Tensor) -> Draw:
    return Draw(seed_for(seed, "augmentation", name), epoch, index)
