"""KD-DLGAN: Cui et al., "KD-DLGAN: data limited image generation via knowledge distillation" (arXiv:2303.17158)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillery.config import Weight
from distillery.objectives.base import Batch, Context, Incompatible
from distillery.objectives.features import pooled, pooled_widths
from distillery.tasks.generation.biggan import SpectralLinear
from distillery.tasks.generation.losses import aggregated, correlated
from distillery.tasks.generation.objectives.base import GAN

KINDS = ("fake", "real")


class Head(nn.Module):
    """The discriminator's extra head: two spectrally normalised linear layers, nothing between them, as released."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_cls_1, self.linear_cls_2 = SpectralLinear(inputs, 1024), SpectralLinear(1024, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map (N, d) pooled features to (N, outputs)."""
        out: Tensor = self.linear_cls_2(self.linear_cls_1(pooled))
        return out


class KDDLGAN(GAN):
    """L = GAN + aggregated * A + correlated * C, each for the real and for the generated images.

    As released, but for a third term that had no gradient. C compares similarities with prototypes of the teacher:
    texts of CLIP as published; of a classifier the rows of its last layer, which is a choice of ours.
    """

    needs = frozenset({"logits", "pooled"})

    class Config(GAN.Config):
        aggregated: Weight = 10.0
        """Of the distances between teacher and head."""
        correlated: Weight = 10.0
        """Of the similarities with prototypes."""

    config: Config
    prototypes: Tensor

    def __init__(self, context: Context, config: Any = None) -> None:
        super().__init__(context, config)
        self.head = Head(*pooled_widths(context, "KD-DLGAN"))
        if self.config.correlated:
            self.register_buffer("prototypes", prototypes_of(context), persistent=False)

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = pooled(batch)
        ours, theirs = self.head(student).chunk(2), teacher.chunk(2)
        terms = aggregated_terms(self.config.aggregated, ours, theirs)
        if self.config.correlated:
            for kind, own, wanted in zip(KINDS, ours, theirs, strict=True):
                term = correlated(own, wanted, self.prototypes.to(wanted))
                terms[f"correlated_{kind}"] = self.config.correlated * term
        return terms


def aggregated_terms(weight: float, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The aggregated term of generated and of real images, whose (B, d) embeddings come in that order."""
    pairs = zip(KINDS, zip(theirs, ours, reversed(ours), strict=True), strict=True)
    return {f"aggregated_{kind}": weight * aggregated(*of) for kind, of in pairs} if weight else {}


def prototypes_of(context: Context) -> Tensor:
    """(K, d) rows of the teacher's last layer. Incompatible if it has none."""
    try:
        assert context.teacher_model is not None
        return torch.clone(context.teacher_model.head.weight.detach())
    except (TypeError, ValueError, AttributeError):
        raise Incompatible(
            "the correlated term compares with prototypes of classes, and the teacher has none: set `correlated: 0` or "
            "take clip_vit_b32_texts"
        ) from None
