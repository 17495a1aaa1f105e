"""RKD: Park et al., "Relational knowledge distillation" (arXiv:1904.05068, CVPR 2019), equations 4 to 8.

As released in mdistiller: distances are divided by the mean of their positive entries (not detached on the student's
side), the root is taken of max(squared distance, eps). Distances come from the differences themselves, which the
angles need anyway, so those of duplicate rows are exact. Two equal student rows give finite but very large gradients
(the angle at zero distance, factor 1e12), as in the released code.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import pooled, pooled_widths
from distillery.objectives.soft import full_precision


def differences(features: Tensor) -> Tensor:
    """(B, d) -> (B, B, d), entry [i, j] = row j - row i."""
    return features[None] - features[:, None]


def mean_distance(differences: Tensor, squared: bool = False, eps: float = 1e-12) -> tuple[Tensor, Tensor]:
    """Pairwise distances (B, B) and the mean () of the positive ones; 1 if there is none, so that it can divide."""
    square = differences.square().sum(dim=2).clamp(min=eps)
    distances = square if squared else square.sqrt()
    distances = distances * (1 - torch.eye(len(distances), dtype=distances.dtype, device=distances.device))
    count = (distances > 0).sum()
    return distances, torch.where(count > 0, distances.sum() / count.clamp(min=1), 1.0)


def _angles(differences: Tensor) -> Tensor:
    """Cosines of the angles at i between j and k, (B, B, B); zero where a side has length zero."""
    directions = F.normalize(differences, dim=2)
    return torch.bmm(directions, directions.transpose(1, 2))


def rkd_terms(student: Tensor, teacher: Tensor, squared: bool = False, eps: float = 1e-12) -> dict[str, Tensor]:
    """Smooth-L1 gaps (means) of the relative distances and of the angles, {"distance": (), "angle": ()}.

    student: (B, d_s), teacher: (B, d_t) pooled features.
    """
    s, t = differences(full_precision(student)), differences(full_precision(teacher))
    (s_distances, s_mean), (t_distances, t_mean) = mean_distance(s, squared, eps), mean_distance(t, squared, eps)
    return {
        "distance": F.smooth_l1_loss(s_distances / s_mean, t_distances / t_mean),
        "angle": F.smooth_l1_loss(_angles(s), _angles(t)),
    }


class RKD(Objective):
    """L = ce_weight * CE + feat_weight * (distance_weight * distance + angle_weight * angle) on the pooled features.

    The terms are those of `rkd_terms`. Defaults: mdistiller and RepDistiller.
    """

    needs = frozenset({"pooled"})

    class Config(Objective.Config):
        idle = MappingProxyType(dict.fromkeys(("squared", "eps"), ({"distance_weight": 0},)))

        feat_weight: Weight = 1.0
        """Of both terms together."""
        distance_weight: Weight = 25.0
        angle_weight: Weight = 50.0
        squared: bool = False
        """Whether the distances are squared."""
        eps: Positive = 1e-12
        """Smallest squared distance."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        pooled_widths(context, "RKD")

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        terms = rkd_terms(*pooled(batch), self.config.squared, self.config.eps)
        return {
            "distance": self.config.feat_weight * self.config.distance_weight * terms["distance"],
            "angle": self.config.feat_weight * self.config.angle_weight * terms["angle"],
        }
