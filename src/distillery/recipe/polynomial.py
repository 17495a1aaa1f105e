"""A power of the time that is left (DeepLab's "poly"): with power 1 a straight line."""

from __future__ import annotations

from distillery.config import Positive
from distillery.recipe.base import Falling


class Polynomial(Falling):
    """min_lr + (lr - min_lr) * (1 - t / T) ** power, as torch's PolynomialLR."""

    class Config(Falling.Config):
        power: Positive = 1.0
        """1: linear."""

    config: Config

    def left(self, done: float) -> float:
        power: float = (1.0 - done) ** self.config.power
        return power
