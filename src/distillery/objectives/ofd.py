"""OFD: Heo et al., "A comprehensive overhaul of feature distillation" (arXiv:1904.01866, ICCV 2019), eq. 1 to 3.

As released, but for one quirk: mdistiller's wrapper leaves the OFD teacher in training mode (batch statistics, drifting
running statistics). Here the teacher is in evaluation mode, as in the paper, as for every other method.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distillery.config import Weight
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.features import average_pool, conv_norm, stage_pairs, stage_taps
from distillery.objectives.soft import full_precision


def margins(norm: nn.BatchNorm2d) -> Tensor:
    """Expected negative pre-activation of each channel, (C,): the mean of N(bias, scale^2) below zero.

    -3 * scale where the channel is negative with probability 0.001 or less, and the bias where the scale is zero.
    """
    mean, scale = norm.bias.detach().double(), norm.weight.detach().double().abs().clamp(min=1e-12)
    below = torch.special.ndtr(-mean / scale)
    density = torch.exp(-0.5 * (mean / scale).square()) / math.sqrt(2 * math.pi)
    margin = torch.where(below > 0.001, mean - scale * density / below, -3 * scale)
    return margin.to(norm.weight.dtype)


def ofd_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Partial squared distance of one stage: mean over the batch, sum over the rest, scalar.

    student, teacher: (B, C, H, W) pre-activations, the student's through its connector; margin: (C,), none positive.
    Entries count where the teacher is positive, and where the student exceeds a negative teacher, of which anything
    below the margin is as good as the margin.
    """
    margin = margin[:, None, None]
    goal = torch.maximum(teacher, margin)
    counted = (teacher > 0) | (student > goal)
    return torch.where(counted, student - goal, 0.0).square().sum(dim=(1, 2, 3)).mean()


class OFD(Objective):
    """L = ce_weight * CE + feat_weight * sum over stages of ofd_loss, the last with factor 1, each before it half.

    Default weight: mdistiller on CIFAR-100 (0.0001 on ImageNet). Larger teacher maps are pooled to the student's size.
    MobileNetV2 has no pre-activation taps and cannot be the student; the ShuffleNets name no normalisation and cannot
    be the teacher.
    """

    needs = frozenset({"preacts"})

    class Config(Objective.Config):
        feat_weight: Weight = 0.001

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        taps = stage_taps(context, "OFD", "preacts", "preacts")
        if context.teacher_model is None:
            raise Incompatible("OFD reads its margins from the teacher: it cannot run from a cached table alone.")
        try:
            norms = context.teacher_model.stage_norms()[-len(taps) :]
        except ValueError as error:
            raise Incompatible(f"OFD: {error}") from None
        if [n.num_features for n in norms] != [t.shape[1] for _, t in taps]:
            raise Incompatible("OFD needs one normalisation of the teacher for each of its stages, of the same width.")
        self.connectors = nn.ModuleList(conv_norm(s.shape[1], t.shape[1], he_normal=True) for s, t in taps)
        for i, norm in enumerate(norms):
            self.register_buffer(f"margin{i}", margins(norm))

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        terms = []
        for i, (s, t) in enumerate(stage_pairs(batch.student.preacts, batch.teacher.preacts)):
            student = self.connectors[i](full_precision(s))
            teacher = average_pool(full_precision(t), student.shape[-2:])
            terms.append(ofd_loss(student, teacher, getattr(self, f"margin{i}")))
        weighted = [2.0 ** (i + 1 - len(terms)) * term for i, term in enumerate(terms)]
        return {"ofd": self.config.feat_weight * torch.stack(weighted).sum()}
