"""DS: data selection of arXiv:2404.03693 (TCDS 2025): the teacher supervises a part of the training set only; the other
images get the ground truth only.

The paper's influence-based score, its fraction and its schedule are not public. The scores here are this project's
declared choice, all taken once, before training, from the frozen teacher on the images without augmentation.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from distillery.objectives.base import Context, Incompatible, Selector
from distillery.objectives.soft import LEFT_OUT, full_precision


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Label logit minus the largest other logit: positive where the teacher is right. (N, C) in, (N,) out."""
    column = labels.unsqueeze(1)
    return logits.gather(1, column).squeeze(1) - logits.scatter(1, column, LEFT_OUT).amax(dim=1)


def confidence(logits: Tensor) -> Tensor:
    """Log of the largest probability, right or wrong. (N, C) in, (N,) out.

    In float64: near 1 float32 has few values, and images that a teacher is sure of would tie.
    """
    return F.log_softmax(logits.double(), dim=1).amax(dim=1)


def residual(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each image's cross-entropy by its logits, p - onehot. (N, C) in, (N, C) float64 out.

    Where a teacher is sure of the label, p - 1 would be mere rounding in float32.
    """
    p = logits.double().softmax(dim=1)
    return p.scatter_add(1, labels.unsqueeze(1), -torch.ones_like(p[:, :1]))


def gradient_norm(logits: Tensor, pooled: Tensor, labels: Tensor) -> Tensor:
    """Norm of each image's cross-entropy gradient by the last layer, weight and bias. (N, C), (N, d) in, (N,) out."""
    return residual(logits, labels).norm(dim=1) * (pooled.double().square().sum(dim=1) + 1).sqrt()


def influence(logits: Tensor, pooled: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    """How much a gradient step of the last layer on an image lowers the loss of images it does not belong to.

    The training set is split at random (by `seed`) into two halves; an image scores the inner product of its last-layer
    gradient with the mean gradient of the other half, so each half is the held-out part of the other. First order:
    the Hessian of an influence function is taken as the identity. (N, C), (N, d) in, (N,) out.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    errors = residual(logits, labels)
    inputs = F.pad(pooled.double(), (0, 1), value=1.0)  # the 1 is the bias
    scores = torch.empty_like(errors[:, 0])
    half = len(order) // 2
    for part, held_out in ((order[:half], order[half:]), (order[half:], order[:half])):
        mean_gradient = errors[held_out].T @ inputs[held_out] / max(len(held_out), 1)
        scores[part] = ((errors[part] @ mean_gradient) * inputs[part]).sum(dim=1)
    return scores


def keep_fraction(scores: Tensor, fraction: float, keep: Literal["highest", "lowest"]) -> Tensor:
    """Mask of the round(fraction * N) highest or lowest scores, at least one; ties by position. (N,) in and out."""
    order = scores.argsort(descending=keep == "highest", stable=True)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[order[: max(1, round(fraction * len(scores)))]] = True
    return mask


class Select(Selector):
    """Distil `fraction` of the training images, those that score highest or lowest; plain cross-entropy for the rest.

    Scores, of the frozen teacher: `margin` (label logit over the best other), `confidence` (top probability), `loss`
    (cross-entropy), `gradient` (norm of the last layer's gradient), `influence` (agreement of that gradient with
    the mean gradient of a held-out half, split by `seed`). Default: the half the teacher is most right about. Of
    several teachers the first scores.
    """

    class Config(Selector.Config):
        idle = MappingProxyType(
            {"seed": tuple({"score": score} for score in ("margin", "confidence", "loss", "gradient"))}
        )

        score: Literal["margin", "confidence", "loss", "gradient", "influence"] = "margin"
        fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
        """Of the training images, the ones that are distilled: fewer than all."""
        keep: Literal["highest", "lowest"] = "highest"
        seed: int = 0
        """Of the halves that `influence` holds out."""

    config: Config

    def mask(self, context: Context) -> Tensor:
        score = self.config.score
        if context.teacher_on_train is None:
            raise Incompatible(
                "plug-in select scores the images by a teacher, and this method has none; drop the plug-in"
            )
        outputs = context.teacher_on_train()
        logits, labels = full_precision(outputs.logits), context.labels.to(outputs.logits.device)
        if score in ("gradient", "influence") and outputs.pooled is None:
            raise Incompatible(
                f"plug-in select: score {score} needs the teacher's pooled features, which are not at hand"
            )
        pooled = logits if outputs.pooled is None else full_precision(outputs.pooled)
        match score:
            case "margin":
                scores = margin(logits, labels)
            case "confidence":
                scores = confidence(logits)
            case "loss":
                scores = F.cross_entropy(logits.double(), labels, reduction="none")
            case "gradient":
                scores = gradient_norm(logits, pooled, labels)
            case "influence":
                scores = influence(logits, pooled, labels, self.config.seed)
        return keep_fraction(scores, self.config.fraction, self.config.keep)
