"""VkD for data-limited generation: Miles, Elezi, Deng (arXiv:2403.06213); no code was released for this part.

From what the author said in public (issues 2, 3, 4, 6 and 11 of roymiles/VkD): KD-DLGAN's code and teacher without what
has to do with texts, the teacher's features whitened, the student's projected orthogonally.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from distillery.config import NonNegative, Positive, Weight
from distillery.errors import DistilleryError
from distillery.objectives.base import Batch, Context
from distillery.objectives.features import centre, pooled, pooled_widths
from distillery.objectives.orthogonal import OrthogonalProjector
from distillery.objectives.soft import full_precision
from distillery.objectives.vkd import Normalise, vkd_loss
from distillery.tasks.generation.objectives.base import GAN
from distillery.tasks.generation.objectives.kd_dlgan import KINDS, Head, aggregated_terms


@torch.no_grad()
def whiten_cholesky(x: Tensor, eps: float) -> Tensor:
    """Whiten (B, d) by the inverse Cholesky factor of (1 - eps) * covariance + eps * identity.

    This is what the author of VkD points to (methods/whitening.py of htdt/self-supervised, Ermolov et al.,
    arXiv:2007.06346), where eps is 0 by default. A batch of B <= d images has a covariance of rank B - 1 at most, which
    has no such factor: with 50 images and CLIP's 512 features eps must be above 0. The directions that the batch does
    not span then count as having variance eps, and since its factor also depends on the order of the features, the
    target is turned from batch to batch; ZCA on the span (`vkd.whiten`) has neither fault.

    Raises DistilleryError where the matrix has no factor.
    """
    centred = centre(full_precision(x)).double()
    covariance = centred.T @ centred / max(len(x) - 1, 1)
    shrunk = (1 - eps) * covariance + eps * torch.eye(x.shape[1], dtype=covariance.dtype, device=x.device)
    factor, failed = torch.linalg.cholesky_ex(shrunk)
    if int(failed):
        raise DistilleryError(
            f"the covariance of {len(x)} images in {x.shape[1]} features has no Cholesky factor with eps {eps:g}: "
            "raise `eps`, or take `whitening: zca`"
        )
    return torch.linalg.solve_triangular(factor, centred.T, upper=False).T.to(full_precision(x).dtype)


class VkDGAN(GAN):
    """L = GAN + feat_weight * smooth-L1(P discriminator's pooled features, normalised teacher's), P orthogonal.

    Real and generated images count alike, each half normalised for itself. Not said by any source, and so declared:
    which feature is projected, that both halves count, smooth-L1 and its weight (the scale of KD-DLGAN's terms), that
    KD-DLGAN's aggregated term is off.
    """

    needs = frozenset({"logits", "pooled"})

    class Config(GAN.Config):
        idle = MappingProxyType(
            {
                **GAN.Config.idle,
                "normalise": ({"feat_weight": 0},),
                "beta": ({"feat_weight": 0},),
                "whitening": tuple({"normalise": other} for other in ("layer_norm", "standardise", "none")),
                "eps": ({"whitening": "zca"},),
            }
        )

        feat_weight: Weight = 10.0
        """Of the feature term."""
        normalise: Normalise = "whiten"
        """What is done to the teacher's features (see `distillery.objectives.vkd.vkd_loss`)."""
        whitening: Literal["zca", "cholesky"] = "zca"
        """How, with `normalise: whiten`: ZCA on the span of the batch, or by the inverse Cholesky factor."""
        eps: NonNegative = 0.001
        """Of the Cholesky factor alone: how much of the identity the covariance is shrunk to."""
        beta: Positive = 1.0
        """Where smooth-L1 turns from square to linear."""
        aggregated: Weight = 0.0
        """Of KD-DLGAN's aggregated term, with its head; 10 there."""

    config: Config

    def __init__(self, context: Context, config: Any = None) -> None:
        super().__init__(context, config)
        widths = pooled_widths(context, "VkD")
        self.projector = OrthogonalProjector(*widths)
        self.head = Head(*widths) if self.config.aggregated else None

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = pooled(batch)
        ours, theirs = self.projector(student).chunk(2), teacher.chunk(2)
        terms: dict[str, Tensor] = {}
        for kind, projected, target in zip(KINDS, ours, theirs, strict=True):
            terms[f"feature_{kind}"] = self.config.feat_weight * self._compared(projected, target)
        if self.head is not None:
            terms |= aggregated_terms(self.config.aggregated, self.head(student).chunk(2), theirs)
        return terms

    def _compared(self, student: Tensor, teacher: Tensor) -> Tensor:
        normalise, beta = self.config.normalise, self.config.beta
        if normalise == "whiten" and self.config.whitening == "cholesky":
            return vkd_loss(student, whiten_cholesky(teacher, self.config.eps), "none", beta)
        return vkd_loss(student, teacher, normalise, beta)
