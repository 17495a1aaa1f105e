"""The moving average of a student's weights, kept beside them while they are trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from distillery.study.blocks import Ema
from distillery.training.trainee import Trainee


class Average:
    """A second trainee that follows the first: average += (1 - decay) * (raw - average) after every step.

    Batch statistics are averaged too, and counters copied, as timm does. Averaged are the weights that predict: of the
    objective only what takes part in the prediction.
    """

    def __init__(self, raw: Trainee, config: Ema) -> None:
        objective = copy.deepcopy(raw.objective) if raw.objective.predicts else raw.objective
        self.raw, self.config = raw, config
        self.trainee = Trainee(copy.deepcopy(raw.student), objective, raw.task)
        pairs = list(zip(self.trainee.state_dict().values(), raw.state_dict().values(), strict=True))
        self._means = [(mean, new) for mean, new in pairs if mean.is_floating_point()]
        self._counts = [(mean, new) for mean, new in pairs if not mean.is_floating_point()]

    def decay(self, update: int) -> float:
        """Of an update, counted from 1."""
        if not self.config.warmup:
            return self.config.decay
        return min(1 - (1 + (update - 1) / self.config.warmup_gamma) ** -self.config.warmup_power, self.config.decay)

    @torch.no_grad()
    def update(self, update: int) -> None:
        """Follow the step that was just made, the `update`-th of the run."""
        mean, raw = map(list, zip(*self._means, strict=True))
        torch._foreach_lerp_(mean, raw, 1 - self.decay(update))
        for count, new in self._counts:
            count.copy_(new)

    def state_dict(self) -> dict[str, Tensor]:
        return self.trainee.state_dict()

    def tested(self) -> dict[str, Trainee]:
        """What is tested, by what its figures are called: "" for the student."""
        if self.config.student == "average":
            return {"": self.trainee, "raw_": self.raw}
        return {"": self.raw, "average_": self.trainee}

    @torch.no_grad()
    def finish(self) -> None:
        """After training: put the student's weights into the trainee."""
        if self.config.student == "average":
            for mean, raw in self._means + self._counts:
                raw.copy_(mean)
