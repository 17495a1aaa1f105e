"""The step schedule of the field: the rate drops by a factor after each milestone."""

from __future__ import annotations

from collections.abc import Iterator

from distillery.config import Positive
from distillery.recipe.base import Schedule


class Steps(Schedule):
    """After milestone m, so that epoch m + 1 is the first below. Its keys may stand in the recipe itself."""

    class Config(Schedule.Config):
        milestones: tuple[int, ...] = (150, 180, 210)
        """Epochs after which the rate drops; none: it is constant."""
        lr_decay: Positive = 0.1
        """Factor of each drop."""

    config: Config

    def curve(self, at: float) -> float:
        return self.recipe.lr * self.config.lr_decay ** sum(at >= m for m in self.config.milestones)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        milestones = self.config.milestones
        if late := [m for m in milestones if m > self.recipe.epochs]:
            yield "milestones", f"{late[0]} is beyond the last epoch, {self.recipe.epochs}"
        if not milestones and self.config.lr_decay != Steps.Config().lr_decay:
            yield "lr_decay", "has no effect without milestones"
        if list(milestones) != sorted({*milestones}) or any(m < 1 for m in milestones):
            yield "milestones", "whole epochs in rising order, counted from 1"
        if self.config.per == "step" and not self.config.warmup_epochs:
            yield "per", "has no effect without warmup_epochs: the rate drops between epochs"
