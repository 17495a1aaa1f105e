"""KDSVD: Lee, Kim, Song, "Self-supervised knowledge distillation using singular value decomposition" (ECCV 2018).

As released (RepDistiller, mdistiller): rank-k right singular vectors of every stage, the student's aligned to the
teacher's, and radial-basis relations between consecutive stages. Works in float32 for every input type. The gradient of
the decomposition leaves out pairs of (nearly) equal singular values, which the released code divides by zero (NaN for a
zero sample). As released, the loss depends on the signs that the solver happens to give to the teacher's vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Count, Weight
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.features import align, stage_taps, stages


def decomposed(x: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values, descending, (B, K), and right vectors (B, W, K) of (B, N, W) matrices, K = min(N, W)."""
    _, values, rows = torch.linalg.svd(x, full_matrices=False)
    return values, rows.transpose(1, 2)


def decomposed_by_gram(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same by the eigenvectors of X'X in float64, for a GPU: a batch of W x W problems is solved at once there.

    An SVD of the tall matrices would be solved there one by one. Values below 1e-8 of the largest are noise, as they
    are in float32 anyway; signs are this solver's.
    """
    wide = x.double()
    squares, vectors = torch.linalg.eigh(wide.transpose(1, 2) @ wide)
    count = min(x.shape[1:])
    values = squares.flip(1)[:, :count].clamp(min=0).sqrt()
    return values.to(x.dtype), vectors.flip(2)[:, :, :count].to(x.dtype)


def right_singular(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Leading singular values (B, count) and right vectors (B, W, count) of the samples as C*H x W matrices.

    features: (B, C, H, W). The values are scaled to unit norm and carry no gradient.
    """
    x = features.float().flatten(1, 2)
    peak = x.detach().abs().amax(dim=(1, 2), keepdim=True)
    x = x / torch.where(peak > 0, peak, 1.0)  # vectors do not depend on the scale
    with torch.no_grad():
        values, vectors = decomposed(x) if x.is_cpu else decomposed_by_gram(x)
        squares = values.square()
        gap = squares[:, None, :] - squares[:, :, None]
        apart = gap.abs() > 1e-6 * squares[:, :1, None]
        inverse = torch.where(apart, 1 / torch.where(apart, gap, 1.0), 0.0)
    # First-order perturbation of the eigenvectors of X'X: its value is `vectors`, its gradient is theirs.
    gram = x.transpose(1, 2) @ x
    change = vectors.transpose(1, 2) @ (gram - gram.detach()) @ vectors
    vectors = vectors + vectors @ (inverse * change)
    return F.normalize(values[:, :count], dim=1), F.normalize(vectors[:, :, :count], dim=1)


def aligned(student: Tensor, teacher: Tensor) -> Tensor:
    """For each teacher vector the student vector of the largest |cosine|, its sign turned; (B, W, m), (B, W, k)."""
    cosine = (student.transpose(1, 2) @ teacher).detach()
    best = cosine.abs().argmax(dim=1, keepdim=True)
    sign = cosine.gather(1, best).sign()
    return student.gather(2, best.expand(-1, student.shape[1], -1)) * sign


def kdsvd_loss(student: list[Tensor], teacher: list[Tensor], k: int = 1) -> Tensor:
    """Squared gaps of the relations of consecutive stages, summed, over the batch size; float32 scalar.

    student, teacher: one (B, C, H, W) map for each stage, at least two; the larger of a pair is pooled first.
    """
    relations = []
    below: tuple[Tensor, Tensor] | None = None
    for pair in zip(student, teacher, strict=True):
        s, t = align(*pair)
        values, t_vectors = right_singular(t, k)
        _, s_vectors = right_singular(s, k + 3)
        scaled = (aligned(s_vectors, t_vectors) * values[:, None], t_vectors * values[:, None])
        if below is not None:
            s_rbf, t_rbf = (
                torch.exp(-(now[:, :, None] - before[:, None]).square() / 8)
                for now, before in zip(scaled, below, strict=True)
            )
            relations.append((s_rbf - t_rbf.detach()).square().sum())
        below = scaled
    return torch.stack(relations).sum() / len(student[0])


class KDSVD(Objective):
    """L = ce_weight * CE + feat_weight * kdsvd_loss over all stages but the stem. Defaults: k = 1, weight 1 (released).

    The eigensolver reports its status to the host, so a step cannot be captured as a graph, and on a GPU it is by far
    the slowest method here: two decompositions of every stage in every step.
    """

    needs = frozenset({"maps"})
    static = False

    class Config(Objective.Config):
        feat_weight: Weight = 1.0
        k: Count = 1
        """Singular vectors of each stage."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        if len(stage_taps(context, "KDSVD")) < 2:
            raise Incompatible("KDSVD relates consecutive stages, but the networks have only one in common.")

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = (list(taps) for taps in zip(*stages(batch), strict=True))
        return {"kdsvd": self.config.feat_weight * kdsvd_loss(student, teacher, self.config.k)}
