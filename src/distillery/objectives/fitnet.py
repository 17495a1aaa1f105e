"""FitNet: Romero et al., "FitNets: hints for thin deep nets" (arXiv:1412.6550, ICLR 2015), equation 3.

As released in mdistiller and RepDistiller: one stage of joint training instead of the paper's two, and a regressor of
convolution, batch normalisation and ReLU.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.objectives.base import Batch, Context, Objective
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
    """L = ce_weight * CE + feat_weight * hint_loss at tap `hint_layer` (0 is the stem).

    Defaults: tap 2 and weight 100, mdistiller and RepDistiller.
    """

    needs = frozenset({"maps"})

    def __init__(
        self, context: Context, *, ce_weight: float = 1.0, feat_weight: float = 100.0, hint_layer: int = 2
    ) -> None:
        super().__init__(context, ce_weight=ce_weight)
        stage_taps(context, "FitNet")
        assert context.teacher is not None
        taps = (context.student.maps, context.teacher.maps)
        if not 0 <= hint_layer < min(map(len, taps)):
            raise ValueError(
                f"hint_layer {hint_layer} does not exist: the networks have {[len(t) for t in taps]} taps."
            )
        self.feat_weight = feat_weight
        self.hint_layer = hint_layer
        self.regressor = hint_regressor(*((x.shape[1], x.shape[2], x.shape[3]) for x in (t[hint_layer] for t in taps)))

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        student = self.regressor(full_precision(batch.student.maps[self.hint_layer]))
        return {"hint": self.feat_weight * hint_loss(student, batch.teacher.maps[self.hint_layer])}
