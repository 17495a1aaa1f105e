"""Half a cosine from `lr` to `min_lr` (SGDR: Loshchilov and Hutter, ICLR 2017), without restarts."""

from __future__ import annotations

import math

from distillery.recipe.base import Falling


class Cosine(Falling):
    """min_lr + (lr - min_lr) * (1 + cos(pi * t / T)) / 2, as torch's CosineAnnealingLR and timm's CosineLRScheduler."""

    def left(self, done: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * done))
