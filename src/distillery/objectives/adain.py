"""AdaIN: Yang et al., "Knowledge distillation via adaptive instance normalization" (arXiv:2003.04289).

The student's channel statistics replace the teacher's in the teacher's own features, and the rest of the teacher judges
them by its output. Neither code nor the exact loss was found in public, so the choices are declared here: a 1x1
convolution with batch normalisation brings the student to the teacher's channels; the judgement is the mean squared gap
between the teacher's logits with the student's statistics and its own (the loss the authors use in SRRL, ICLR 2021),
summed over the inner stages. The last stage does not count: what follows it in most families is the mean over positions
and a linear layer, so the logits there depend on the means alone and the deviations would get no gradient. SRRL itself,
as the authors' code has it, is the term `srrl_weight`: at the last tap the spatial means are matched, and the teacher's
logits of the projected student map are matched to its own.
"""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Weight
from distillery.models.base import Network
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.features import conv_norm, stage_taps
from distillery.objectives.soft import full_precision


def statistics(features: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over its positions: (B, C, H, W) -> two of (B, C, 1, 1).

    eps is added to the variance, so that a constant channel has a finite gradient.
    """
    mean = features.mean(dim=(2, 3), keepdim=True)
    variance = (features - mean).square().mean(dim=(2, 3), keepdim=True)
    return mean, (variance + eps).sqrt()


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Give content's maps the channel statistics of style's; (B, C, H, W) of any two sizes, content's is kept."""
    (mean, std), (style_mean, style_std) = statistics(content), statistics(style)
    return style_std * (content - mean) / std + style_mean


def heard(teacher: Network, features: Tensor, tap: int) -> bool:
    """Whether the teacher's output depends on the channel deviations of its (1, C, H, W) map, not on the means only.

    Tried in float64 with three times the deviations: a tail that is linear in the pooled map gives the same logits.
    """
    network, own = copy.deepcopy(teacher).double().eval(), features.detach().double()
    mean = own.mean(dim=(2, 3), keepdim=True)
    try:
        with torch.no_grad():
            plain, changed = (network.tail(mean + factor * (own - mean), tap) for factor in (1, 3))
    except ValueError as error:
        raise Incompatible(f"AdaIN: {error}") from None
    return bool((changed - plain).norm() > 1e-9 * plain.norm())


class AdaIN(Objective):
    """L = ce_weight * CE + sum over stages of (adain_weight * judgement + l2_weight * statistics) + srrl_weight * SRRL.

    All weights are declared choices, except srrl_weight's 1 in the authors' SRRL code (with adain_weight 0).
    """

    needs = frozenset({"maps", "logits"})

    class Config(Objective.Config):
        idle = MappingProxyType({"stages": ({"adain_weight": 0, "l2_weight": 0},)})

        adain_weight: Weight = 1.0
        l2_weight: Weight = 0.0
        """Of the plain gap of means and deviations, which the paper finds weaker."""
        srrl_weight: Weight = 0.0
        """Of SRRL's two terms."""
        stages: Literal["all"] | tuple[int, ...] = "all"
        """Taps whose statistics are transferred, 0 the stem, negative from the end; all: every stage but the last."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        pairs = stage_taps(context, "AdaIN")
        if context.teacher_model is None or context.teacher is None:
            raise Incompatible("AdaIN runs the teacher on changed features: it cannot run from a cached table alone.")
        self._teacher: tuple[Network] = (context.teacher_model,)  # in a tuple: neither trained nor saved with this
        self.taps = self._taps(context.student.maps, context.teacher.maps, len(pairs))
        maps = ((context.student.maps[s], context.teacher.maps[t]) for s, t in self.taps)
        self.connectors = nn.ModuleList(connector(*pair) for pair in maps)
        self.last = connector(*pairs[-1]) if self.config.srrl_weight else None

    def _taps(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], paired: int) -> list[tuple[int, int]]:
        """The taps of student and teacher that are compared; the teacher's counted from 0."""
        if not (self.config.adain_weight or self.config.l2_weight):
            return []
        every = self.config.stages == "all"
        taps, found = range(-paired, -1) if self.config.stages == "all" else self.config.stages, []
        for tap in taps:
            if not -len(teacher) <= tap < len(teacher) or not -len(student) <= tap < len(student):
                raise Incompatible(f"stage {tap} does not exist: the teacher has {len(teacher)} taps, counted from 0.")
            place = tap % len(teacher)
            if not self.config.adain_weight or heard(self._teacher[0], teacher[place], place):
                found.append((tap, place))
            elif not every:
                raise Incompatible(
                    f"AdaIN: the teacher's output depends on the means of tap {place} alone, "
                    "so the student's deviations would not be judged: choose an inner stage."
                )
        if not found:
            raise Incompatible("AdaIN: no inner stage is left whose deviations the teacher's output depends on.")
        return found

    def judgement(self, style: Tensor, content: Tensor, logits: Tensor, tap: int) -> Tensor:
        """Mean squared gap of the teacher's logits with the statistics of `style` at `maps[tap]` and its own."""
        judged = self._teacher[0].tail(adain(content, style), tap)
        return F.mse_loss(full_precision(judged), logits)

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        c, logits, terms = self.config, full_precision(batch.teacher.logits), {}
        judged, gaps = [], []
        for project, (s, t) in zip(self.connectors, self.taps, strict=True):
            student, teacher = project(full_precision(batch.student.maps[s])), full_precision(batch.teacher.maps[t])
            if c.adain_weight:
                judged.append(self.judgement(student, teacher, logits, t))
            if c.l2_weight:
                gaps += [F.mse_loss(a, b) for a, b in zip(statistics(student), statistics(teacher), strict=True)]
        if judged:
            terms["adain"] = c.adain_weight * torch.stack(judged).sum()
        if gaps:
            terms["statistics"] = c.l2_weight * torch.stack(gaps).sum()
        if self.last is not None:
            student, teacher = self.last(full_precision(batch.student.maps[-1])), full_precision(batch.teacher.maps[-1])
            means = F.mse_loss(student.mean(dim=(2, 3)), teacher.mean(dim=(2, 3)))
            output = self._teacher[0].tail(student, len(batch.teacher.maps) - 1)
            terms["srrl"] = c.srrl_weight * (means + F.mse_loss(full_precision(output), logits))
        return terms


def connector(student: Tensor, teacher: Tensor) -> nn.Sequential:
    """Projection of a student's map to the teacher's channels; it ends in a ReLU, as in SRRL, if the tap does."""
    return conv_norm(student.shape[1], teacher.shape[1], relu=bool((teacher >= 0).all()), he_normal=True)
