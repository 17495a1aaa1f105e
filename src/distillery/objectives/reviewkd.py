"""ReviewKD: Chen et al., "Distilling knowledge via knowledge review" (arXiv:2104.09044, CVPR 2021), sections 3.2-3.3.

As released in mdistiller: the student's maps and its pooled feature go from deep to shallow through fusion modules
whose outputs are compared with the teacher's pre-activation maps and pooled feature. Channels and sizes, which the
released code lists by hand for each family, come from the example outputs here.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Epochs, Weight
from distillery.models.base import Outputs
from distillery.objectives.base import Batch, Context, Objective, warmup
from distillery.objectives.features import average_pool, conv_norm, pooled_widths, stage_taps
from distillery.objectives.soft import full_precision


def hcl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss of one level, scalar; (B, C, H, W) both.

    Mean squared differences of the maps and of their poolings to 4, 2 and 1 (those below H), weighted 1, 1/2, 1/4, 1/8
    in the order of use and divided by the sum of the weights used.
    """
    student, teacher = full_precision(student), full_precision(teacher)
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size < student.shape[2]:
            weight /= 2
            weights += weight
            small = [average_pool(x, (size, size)) for x in (student, teacher)]
            total = total + weight * F.mse_loss(small[0], small[1])
    return total / weights


class Fusion(nn.Module):
    """Attention-based fusion (ABF) of a level with the residual from the level below it.

    forward: (B, inputs, h, w) map, residual (B, middle, h', w') or None, output size -> the (B, outputs, *size) map to
    compare with the teacher's, and the (B, middle, *size) residual for the next level.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, fuse: bool) -> None:
        super().__init__()
        self.conv1 = conv_norm(inputs, middle)
        self.conv2 = conv_norm(middle, outputs, 3)
        for conv in (*self.conv1[:1], *self.conv2[:1]):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        self.attention = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if fuse else None

    def forward(self, x: Tensor, residual: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        x = self.conv1(x)
        if self.attention is not None and residual is not None:
            residual = F.interpolate(residual, x.shape[-2:], mode="nearest")
            share = self.attention(torch.cat([x, residual], dim=1))
            x = x * share[:, :1] + residual * share[:, 1:]
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="nearest")
        return self.conv2(x), x


def review(fusions: nn.ModuleList, student: list[Tensor], sizes: list[torch.Size]) -> list[Tensor]:
    """Run the student's levels, deepest first, through the fusions; `sizes` are the teacher's, in the same order."""
    results, residual = [], None
    for fusion, x, size in zip(fusions, student, sizes, strict=True):
        result, residual = fusion(x, residual, size)
        results.append(result)
    return results


class ReviewKD(Objective):
    """L = ce_weight * CE + min(epoch / warmup_epochs, 1) * feat_weight * sum over levels of hcl_loss.

    Defaults: mdistiller (weight 1; resnet32x4 -> resnet8x4 uses 5, the other pairs 0.6 to 8). Epochs count from 1, from
    0 in the authors' own code. The middle width is min(512, width of the pooled feature).
    """

    needs = frozenset({"maps", "preacts", "pooled"})

    class Config(Objective.Config):
        feat_weight: Weight = 1.0
        warmup_epochs: Epochs = 20.0
        """Over which the term grows to its weight; 0: none."""
        student_taps: Literal["maps", "preacts"] = "maps"
        """Taps after the activation (released for most families) or before it."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        taps = self.config.student_taps
        widths = [
            (pooled_widths(context, "ReviewKD")),
            *((s.shape[1], t.shape[1]) for s, t in reversed(stage_taps(context, "ReviewKD", taps, "preacts"))),
        ]
        middle = min(512, widths[0][0])
        self.levels = len(widths)
        self.fusions = nn.ModuleList(Fusion(s, middle, t, fuse=i > 0) for i, (s, t) in enumerate(widths))

    def _deep_first(self, outputs: Outputs, taps: str) -> list[Tensor]:
        assert outputs.pooled is not None
        maps: tuple[Tensor, ...] = getattr(outputs, taps)
        return [full_precision(x) for x in (outputs.pooled[:, :, None, None], *maps[::-1])][: self.levels]

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        teacher = self._deep_first(batch.teacher, "preacts")
        reviewed = review(
            self.fusions, self._deep_first(batch.student, self.config.student_taps), [t.shape[-2:] for t in teacher]
        )
        loss = torch.stack([hcl_loss(s, t) for s, t in zip(reviewed, teacher, strict=True)]).sum()
        return {"review": warmup(batch.epoch, self.config.warmup_epochs, loss.dtype) * self.config.feat_weight * loss}
