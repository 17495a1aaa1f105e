"""CTKD: Li et al., "Curriculum temperature for knowledge distillation" (arXiv:2211.16231, AAAI 2023), section 3."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distillery.config import Finite, Positive, Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.kd import kd_loss


def curriculum(epoch: Tensor, decay_epochs: float = 10.0, decay_max: float = 0.0, decay_min: float = -1.0) -> Tensor:
    """Cosine schedule of the gradient's factor on the temperature, () epoch counted from 1 in, () factor out.

    It goes from `decay_max` (no learning) to `decay_min` (full reversal) in `decay_epochs` epochs and stays there.
    """
    angle = math.pi * torch.clamp(epoch, max=decay_epochs) / decay_epochs
    return 0.5 * (1 + torch.cos(angle)) * (decay_max - decay_min) + decay_min


def scale_gradient(value: Tensor, factor: Tensor) -> Tensor:
    """Return `value` as it is, with its gradient multiplied by `factor` (negative: gradient reversal)."""
    return value.detach() + factor * (value - value.detach())


def learned_temperature(raw: Tensor, t_start: float = 1.0, t_end: float = 20.0) -> Tensor:
    """Map the learned scalar to t_start + t_end * sigmoid(raw): it lies between t_start and t_start + t_end."""
    return t_start + t_end * torch.sigmoid(raw)


class CTKD(Objective):
    """L = ce_weight * CE + kd_weight * kd_loss at a learned temperature that ascends the distillation loss.

    One scalar for all images, trained by the student's optimiser, weight decay included, as released. Its gradient is
    finite at any finite logits (the released code's is NaN once a teacher probability underflows to 0).

    Defaults are those of the official CIFAR-100 script: initial scalar 1 (T = 15.6), T between 1 and 21, reversal
    growing over 10 epochs (ImageNet: 5), weights 0.1 and 0.9. The logs released with CTKD + `standardise`
    (arXiv:2403.01427, ce_weight 0.1, kd_weight 9) settle at T = 2, i.e. at t_start = 2.
    """

    class Config(Objective.Config):
        t_start: Positive = 1.0
        """Lower end of the temperature."""
        t_end: Positive = 20.0
        """Width of its range: the temperature lies below t_start + t_end."""
        initial: Finite = 1.0
        """Start of the learned scalar, before the sigmoid."""
        decay_epochs: Positive = 10.0
        decay_max: Finite = 0.0
        """Factor of the temperature's gradient at the start."""
        decay_min: Finite = -1.0
        """The same after decay_epochs; negative: the temperature ascends the loss."""
        ce_weight: Weight = 0.1
        kd_weight: Weight = 0.9

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        self.raw_temperature = nn.Parameter(torch.tensor(self.config.initial))

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        c = self.config
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
        factor = curriculum(batch.epoch.to(self.raw_temperature.dtype), c.decay_epochs, c.decay_max, c.decay_min)
        temperature = learned_temperature(scale_gradient(self.raw_temperature, factor), c.t_start, c.t_end)
        return {"kd": c.kd_weight * kd_loss(student, teacher, temperature)}
