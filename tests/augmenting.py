"""Images to augment, and how a recipe's entries become something to call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from photographs import photographs
from PIL import Image
from torch import Tensor

from distillery.data.augment import Augmentations
from distillery.study.blocks import Recipe

SIZE = (32, 24)
MEAN_COLOUR = (124, 116, 104)
DEIT = ({"name": "randaugment"}, {"name": "random_erasing"}, {"name": "mixup_cutmix"})


def pictures() -> Tensor:
    """Real pixels, and extreme images: constant, two-valued, noise; not square."""
    rng = np.random.default_rng(0)
    flat = np.broadcast_to(rng.integers(0, 256, (4, 1, 1, 3), dtype=np.uint8), (4, 32, 32, 3))
    two = np.where(rng.random((4, 32, 32, 3)) < 0.1, 255, 3).astype(np.uint8)
    noise = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    extreme = torch.from_numpy(np.concatenate([flat, two, noise]).transpose(0, 3, 1, 2).copy())
    return torch.cat([photographs(48), extreme])[..., : SIZE[0], : SIZE[1]].contiguous()


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def augmentations(*then: dict[str, Any], classes: int = 10, **recipe: Any) -> Augmentations:
    return Augmentations(Recipe(augmentation={"then": then}, **recipe), classes, normalise)


def normalise(images: Tensor) -> Tensor:
    return images.float() / 255 - 0.5
