"""FitNet: Romero et al., "FitNets: hints for thin deep nets" (arXiv:1412.6550, ICLR 2015), equation 3.

As released in mdistiller and RepDistiller: one stage of joint training instead of the paper's two, and a regressor of
convolution, batch normalisation and ReLU.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from distillery.config import Weight
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.features import BatchNorm, average_pool, stage_taps
from distillery.objectives.soft import full_precision


def hint_regressor(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Sequential:
    """Map student maps to the teacher's shape, both (channels, height, width).

    Half the size: 3x3 of stride 2; double: transposed 4x4 of stride 2; otherwise an unpadded convolution takes off the
    difference. A teacher that is larger but not double cannot be reached (the released code fails): 1x1, the hint then
    is pooled to the student's size.
    """
    (inputs, h, w), (outputs, height, width) = student, teacher
    conv: nn.Module
    if h == 2 * height:
        conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    elif 2 * h == height:
        conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    else:
        conv = nn.Conv2d(inputs, outputs, (1 + max(h - height, 0), 1 + max(w - width, 0)))
    return nn.Sequential(conv, BatchNorm(outputs), nn.ReLU())


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of (B, C, H, W) maps over all entries; a larger teacher map is pooled, scalar."""
    return F.mse_loss(student, average_pool(full_precision(teacher), student.shape[-2:]))


class FitNet(Objective):
    """L = ce_weight * CE + feat_weight * hint_loss at tap `hint_layer`.

    Defaults: tap 2 and weight 100, mdistiller and RepDistiller.
    """

    needs = frozenset({"maps"})

    class Config(Objective.Config):
        feat_weight: Weight = 100.0
        hint_layer: Annotated[int, Field(ge=0)] = 2
        """Tap that is compared; 0 is the stem."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        stage_taps(context, "FitNet")
        assert context.teacher is not None
        taps, layer = (context.student.maps, context.teacher.maps), self.config.hint_layer
        if layer >= min(map(len, taps)):
            raise Incompatible(f"hint_layer {layer} does not exist: the networks have {[len(t) for t in taps]} taps.")
        self.regressor = hint_regressor(*((x.shape[1], x.shape[2], x.shape[3]) for x in (t[layer] for t in taps)))

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student = self.regressor(full_precision(batch.student.maps[self.config.hint_layer]))
        return {"hint": self.config.feat_weight * hint_loss(student, batch.teacher.maps[self.config.hint_layer])}
