"""VID: Ahn et al., "Variational information distillation for knowledge transfer" (arXiv:1904.05835, CVPR 2019).

Equations 5 and 6 as released: the mean of the Gaussian is three bias-free 1x1 convolutions of the student's map. Its
variances are trained in RepDistiller and in the paper, but stay at their start in mdistiller, which never hands them to
the optimiser; the mdistiller tables, and so the default here, are of the latter.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import align, stage_taps, stages


def start_log_scale(variance: float = 5.0, eps: float = 1e-5) -> float:
    """The log-scale a with log(1 + exp(a)) + eps = variance > eps; the released form overflows above 88."""
    return variance - eps + math.log(-math.expm1(eps - variance))


def vid_loss(mean: Tensor, log_scale: Tensor, teacher: Tensor, eps: float = 1e-5) -> Tensor:
    """Mean over all entries of ((mean - teacher)^2 / v + log v) / 2 with v = log(1 + exp(log_scale)) + eps, scalar.

    mean, teacher: (B, C_t, H, W), the mean from the regressor; log_scale: (C_t,).
    """
    variance = torch.logaddexp(log_scale, torch.zeros_like(log_scale)).add(eps)[:, None, None]
    return 0.5 * ((mean - teacher).square() / variance + variance.log()).mean()


def regressor(inputs: int, outputs: int) -> nn.Sequential:
    """Three bias-free 1x1 convolutions with ReLU between, student to teacher channels."""
    convs = [nn.Conv2d(width, outputs, 1, bias=False) for width in (inputs, outputs, outputs)]
    return nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])


class VID(Objective):
    """L = ce_weight * CE + feat_weight * sum over stages of vid_loss. Defaults: mdistiller (see the file's docstring).

    A larger student map is pooled before its regressor.
    """

    needs = frozenset({"maps"})

    class Config(Objective.Config):
        feat_weight: Weight = 1.0
        init_variance: Positive = 5.0
        """At the start, of every channel; more than eps."""
        eps: Positive = 1e-5
        """Smallest variance."""
        train_variance: bool = False
        """Whether the variances are trained (see the module's docstring)."""

        @model_validator(mode="after")
        def _start(self) -> Self:
            if self.init_variance <= self.eps:
                raise ValueError(f"init_variance: should be more than eps, {self.eps}, not {self.init_variance}")
            return self

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        widths = [(s.shape[1], t.shape[1]) for s, t in stage_taps(context, "VID")]
        self.regressors = nn.ModuleList(regressor(s, t) for s, t in widths)
        for i, (_, channels) in enumerate(widths):
            log_scale = torch.full((channels,), start_log_scale(self.config.init_variance, self.config.eps))
            if self.config.train_variance:
                self.register_parameter(f"log_scale{i}", nn.Parameter(log_scale))
            else:
                self.register_buffer(f"log_scale{i}", log_scale)

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        terms = []
        for i, (student, teacher) in enumerate(stages(batch)):
            s, t = align(student, teacher)
            terms.append(vid_loss(self.regressors[i](s), getattr(self, f"log_scale{i}"), t, self.config.eps))
        return {"vid": self.config.feat_weight * torch.stack(terms).sum()}
