"""IKD: a host (FGD or MGD) and, on adversarial twins of the images, the gap of the pyramids' maps."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Count, Positive, Weight
from distillery.objectives.base import Batch, Context
from distillery.objectives.soft import full_precision
from distillery.tasks.detection.objectives.base import Detect
from distillery.tasks.detection.objectives.maps import (
    FGDTerms,
    FGDWeights,
    MGDTerms,
    MGDWeights,
    aligner,
    widths,
)

Kind = Literal["mse", "l1", "cwd"]


def twin_gap(student: Tensor, teacher: Tensor, kind: Kind = "mse", temperature: float = 1.0) -> Tensor:
    """The gap of two (N, C, H, W) maps, scalar: squares or absolute values summed over all, over N images; or cwd.

    cwd: channel-wise distillation, temperature squared times KL(teacher || student) of softmaxes over places, over C N.
    """
    n, c = student.shape[:2]
    if kind == "mse":
        return (student - teacher).square().sum() / n
    if kind == "l1":
        return (student - teacher).abs().sum() / n
    mine, theirs = ((x / temperature).flatten(2) for x in (student, teacher))
    divergence = F.kl_div(mine.log_softmax(2), theirs.log_softmax(2), reduction="sum", log_target=True)
    return temperature**2 * divergence / (c * n)


class IKD(Detect):
    """IKD: Liang et al. (arXiv:2209.09841, ACM MM 2023).

    L = losses + host + weight * sum over maps of `twin_gap`.

    The twins deceive the teacher (`task: {name: detection, adversarial: {}}` makes them); student and teacher see each
    in the view of its image, without noise. From epoch `until` + 1 on the host is alone, as in the released training,
    which ends there and is resumed without the twins. The augmentation by size is the recipe's: `size_gated`, which has
    an `until` of its own.
    """

    needs = frozenset({"maps", "strong"})

    class Config(Detect.Config):
        """Keys of a method's block."""

        idle = MappingProxyType(
            {
                "fgd": ({"host": "mgd"},),
                "mgd": ({"host": "fgd"},),
                "temperature": ({"gap": "mse"}, {"gap": "l1"}),
            }
        )

        host: Literal["fgd", "mgd"] = "fgd"
        """The method that IKD is added to."""
        fgd: FGDWeights = FGDWeights()
        """Keys of the host FGD."""
        mgd: MGDWeights = MGDWeights()
        """Keys of the host MGD."""
        weight: Weight = 1e-5
        """Of the gap on twins; 1e-5 for RetinaNet and RepPoints, 2.5e-7 for Mask R-CNN."""
        gap: Kind = "mse"
        """How maps of twins are compared; released configurations use only `mse`."""
        temperature: Positive = 1.0
        """Of `cwd`."""
        until: Count = 16
        """Last epoch with the twins; released: of 24."""
        inherit: bool = True
        """Start the student's pyramid and heads from the teacher's weights."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        self.inherits, pairs = self.config.inherit, widths(context, "IKD")
        fgd = self.config.host == "fgd"
        self.host = FGDTerms(pairs, self.config.fgd) if fgd else MGDTerms(pairs, self.config.mgd)
        self.aligned = nn.ModuleList(aligner(s, t) for s, t in pairs)

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {self.config.host: self.host(batch)}
        if self.config.weight == 0:
            return terms
        assert batch.strong_student is not None and batch.strong_teacher is not None
        gaps = [
            twin_gap(align(full_precision(s)), full_precision(t), self.config.gap, self.config.temperature)
            for align, s, t in zip(self.aligned, batch.strong_student.maps, batch.strong_teacher.maps, strict=True)
        ]
        gap = self.config.weight * torch.stack(gaps).sum()
        return terms | {"twins": torch.where(batch.epoch <= self.config.until, gap, torch.zeros_like(gap))}
