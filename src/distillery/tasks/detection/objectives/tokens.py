"""Distillation of ViDT's tokens: by VkD's orthogonal projections, and by ViDT's own token matching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Context, Incompatible
from distillery.objectives.features import standardise
from distillery.objectives.orthogonal import OrthogonalProjector
from distillery.objectives.soft import full_precision
from distillery.tasks.detection.objectives.base import Detect


def pools(tokens: Sequence[Tensor]) -> list[Tensor]:
    """The six sets of tokens that are compared, (n, C) each: four maps, the tokens before the decoder, and all sets.

    The last holds the tokens before the decoder again, as released.

    Args:
        tokens: `Detections.tokens`: maps (B, h w, C) and the sets (B, sets, T, C).
    """
    *maps, sets = tokens
    return [full_precision(x.flatten(0, -2)) for x in (*maps, sets[:, 0], sets)]


def checked(context: Context, method: str, widths: bool) -> tuple[list[int], list[int]]:
    """The widths of both networks' pools. Raises Incompatible if they have no tokens, or not equally many."""
    if context.teacher is None:
        raise Incompatible(f"{method} compares with a teacher: name a pair that has one")
    mine, theirs = context.student.tokens, context.teacher.tokens
    if not mine or not theirs:
        raise Incompatible(f"{method} compares detection tokens: take vidt_* as student and as teacher")
    if [t.shape[:-1] for t in mine] != [t.shape[:-1] for t in theirs]:
        raise Incompatible(
            f"{method} compares token by token: take networks with as many detection tokens and decoder layers as each "
            "other"
        )
    of_student, of_teacher = ([x.shape[-1] for x in pools(tokens)] for tokens in (mine, theirs))
    if widths and of_student != of_teacher:
        raise Incompatible(f"{method} compares tokens of one width, and these have {of_student[0]} and {of_teacher[0]}")
    return of_student, of_teacher


def vkd_term(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    """Mean smooth-L1 gap of two (n, C) pools after standardisation of every column, scalar."""
    return F.smooth_l1_loss(standardise(student), standardise(teacher), beta=beta)


class VkDTokenPools(Detect):
    """VkD: Miles, Elezi, Deng (arXiv:2403.06213, CVPR 2024), detection: six pools of tokens, each with its projector.

    L = losses + weight * sum over pools of smooth-L1(standardised P s, standardised t). P is orthogonal (the matrix
    exponential; square where both widths agree). As released: a learned scale and bias behind P are left out, since
    they cancel in the standardisation but for a sign; padding counts among the tokens. Under torchrun statistics are
    those of the whole batch, where the released code takes each GPU's own.
    """

    needs = frozenset({"tokens"})

    class Config(Detect.Config):
        weight: Weight = 4.0
        """Of the distillation term."""
        beta: Positive = 1.0
        """Where smooth-L1 turns from square to linear."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        widths = zip(*checked(context, "VkD", widths=False), strict=True)
        self.projectors = nn.ModuleList(OrthogonalProjector(s, t, "matrix_exp") for s, t in widths)

    def pairs(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Projected and wanted tokens of the six pools."""
        pools_of = pools(batch.student.tokens), pools(batch.teacher.tokens)
        for project, mine, theirs in zip(self.projectors, *pools_of, strict=True):
            yield project(mine), theirs

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        terms = [vkd_term(mine, theirs, self.config.beta) for mine, theirs in self.pairs(batch)]
        return {"tokens": self.config.weight * torch.stack(terms).sum()}


def token_matching(student: Sequence[Tensor], teacher: Sequence[Tensor], sets: int) -> Tensor:
    """ViDT's token matching as released: the root of a sum of mean Euclidean distances of the pools' rows.

    The last pool, which holds the tokens of all sets, counts `sets` times.
    """
    distances = [torch.linalg.vector_norm(s - t, dim=-1).mean() for s, t in zip(student, teacher, strict=True)]
    total = torch.stack([*distances[:-1], distances[-1] * sets]).sum()
    return torch.where(total > 0, torch.where(total > 0, total, 1.0).sqrt(), total)


class TokenMatching(Detect):
    """ViDT's own distillation (Song et al., arXiv:2110.03921, section 4.3): tokens of one width, compared as they are.

    L = losses + weight * token_matching.
    """

    needs = frozenset({"tokens"})

    class Config(Detect.Config):
        weight: Weight = 4.0
        """Of the distillation term."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        checked(context, "token matching", widths=True)

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        sets = batch.student.tokens[-1].shape[1]
        term = token_matching(pools(batch.student.tokens), pools(batch.teacher.tokens), sets)
        return {"tokens": self.config.weight * term}
