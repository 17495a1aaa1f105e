"""VkD: Miles, Elezi, Deng, "VkD: improving knowledge distillation using orthogonal projections" (arXiv:2403.06213).

The student's features go through a semi-orthogonal projector (orthogonal.py), the teacher's are normalised for the
task, and smooth-L1 compares them. As released, except that the projector survives weight decay. Where the released
standardisation divides zero by zero (constant channel, batch of one) the channel counts as 0.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Positive, Weight
from distillery.errors import DistilleryError
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import centre, pooled, pooled_widths, standardise
from distillery.objectives.kd import kd_loss
from distillery.objectives.orthogonal import Map as OrthogonalMap
from distillery.objectives.orthogonal import OrthogonalProjector
from distillery.objectives.soft import full_precision

Normalise = Literal["layer_norm", "standardise", "whiten", "none"]


@torch.no_grad()
def whiten(x: Tensor, tolerance: float = 1e-6) -> Tensor:
    """ZCA whitening over the batch: (B, d) -> (B, d) with mean 0 and identity covariance (unbiased).

    ZCA, the symmetric root of the inverse covariance, because of all whitenings it stays closest to the data: rotations
    and signs of PCA, and the channel order of Cholesky, would move the target from batch to batch. Directions with less
    than `tolerance` of the largest deviation (constant channels, batch smaller than the width) are left at zero, so
    the covariance then is the identity on the span of the batch. The eigenproblem is solved in float64 and on the
    smaller side (B or d). No gradient: only teachers are whitened. Raises DistilleryError if features are not finite.
    """
    centred = centre(full_precision(x)).double()
    peak = centred.abs().amax()
    centred = centred / torch.where(peak > 0, peak, 1.0)
    tall = len(x) > x.shape[1]
    try:
        values, vectors = torch.linalg.eigh(centred.T @ centred if tall else centred @ centred.T)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # within an epoch, before the loss is looked at
        raise DistilleryError(
            "the teacher's features cannot be whitened, since they or the images it was shown are not finite: "
            "lower `recipe.lr` or the method's weights"
        ) from None
    kept = values > tolerance**2 * values[-1]
    root = vectors * torch.where(kept, torch.where(kept, values, 1.0).rsqrt(), 0.0) @ vectors.T
    white = centred @ root if tall else root @ centred
    return (white * max(len(x) - 1, 1) ** 0.5).to(full_precision(x).dtype)


def vkd_loss(projected: Tensor, teacher: Tensor, normalise: Normalise = "layer_norm", beta: float = 1.0) -> Tensor:
    """Mean smooth-L1 gap of projected student and normalised teacher features, (B, d_t) both, scalar.

    layer_norm: each teacher row, without affine, eps 1e-5; the student is not normalised (classification, released).
    standardise: each channel of both over the batch (detection, released; the learned scale and bias behind that
    projector cancel in it but for a sign, so there are none here). whiten: the teacher (generation, paper only). none:
    neither.
    """
    student, target = full_precision(projected), full_precision(teacher)
    if normalise == "layer_norm":
        target = F.layer_norm(target, target.shape[1:], eps=1e-5)
    elif normalise == "standardise":
        student, target = standardise(student), standardise(target)
    elif normalise == "whiten":
        target = whiten(target)
    return F.smooth_l1_loss(student, target, beta=beta)


class VkD(Objective):
    """L = ce_weight * CE + feat_weight * vkd_loss of the pooled features + kd_weight * KD at `temperature`.

    Defaults: the released ImageNet set-up (weights 1, KL at temperature 1, layer norm, householder map for non-square
    and matrix exponential for square projectors). There the student's feature is the mean of its patch tokens; for
    convolutional networks it is the pooled feature. The detection code weights the feature term with 4.
    """

    needs = frozenset({"logits", "pooled"})

    class Config(Objective.Config):
        idle = MappingProxyType(
            {"temperature": ({"kd_weight": 0},)}
            | dict.fromkeys(("normalise", "orthogonal_map", "beta"), ({"feat_weight": 0},))
        )

        feat_weight: Weight = 1.0
        """Of the feature term; the released detection code has 4."""
        kd_weight: Weight = 1.0
        temperature: Positive = 1.0
        """Of the KD term."""
        normalise: Normalise = "layer_norm"
        """What is done to the teacher's features (see `vkd_loss`)."""
        orthogonal_map: OrthogonalMap = "auto"
        """How the projector stays orthogonal (see orthogonal.py); auto: householder unless the projector is square."""
        beta: Positive = 1.0
        """Where smooth-L1 turns from square to linear."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        student, teacher = pooled_widths(context, "VkD")
        self.projector = OrthogonalProjector(student, teacher, self.config.orthogonal_map)

    @property
    def static(self) -> bool:
        """False with whitening and with the Cayley map: eigensolver and LU report their status to the host."""
        return super().static and self.config.normalise != "whiten" and self.config.orthogonal_map != "cayley"

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = pooled(batch)
        loss = vkd_loss(self.projector(student), teacher, self.config.normalise, self.config.beta)
        terms = {"feature": self.config.feat_weight * loss}
        if self.config.kd_weight:
            pair = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
            terms["kd"] = self.config.kd_weight * kd_loss(*pair, self.config.temperature)
        return terms
