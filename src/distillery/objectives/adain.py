"""AdaIN: Yang et al., "Knowledge distillation via adaptive instance normalization" (arXiv:2003.04289).

The student's channel statistics replace the teacher's in the teacher's own features, and the rest of the teacher judges
them by its output. Neither code nor the exact loss was found in public, so the choices are declared here: a 1x1
convolution with batch normalisation brings the student to the teacher's channels, and the judgement is the mean squared
gap between the teacher's logits with the student's statistics and its own (the loss the authors use in SRRL, ICLR
2021). SRRL itself, as their code has it, is the term `srrl_weight`: spatial means matched, and the teacher's logits of
the projected student map matched to its own.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

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


class AdaIN(Objective):
    """L = ce_weight * CE + adain_weight * judgement + l2_weight * statistics + srrl_weight * SRRL.

    stage: tap whose statistics are transferred, 0 the stem, negative from the end (default the last). l2_weight is for
    the plain gap of means and deviations, which the paper finds weaker. All weights are declared choices, except
    srrl_weight's 1 in the authors' SRRL code (with adain_weight 0).
    """

    needs = frozenset({"maps", "logits"})

    class Config(Objective.Config):
        adain_weight: Weight = 1.0
        l2_weight: Weight = 0.0
        """Of the plain gap of means and deviations, which the paper finds weaker."""
        srrl_weight: Weight = 0.0
        """Of SRRL's two terms; 1 in the authors' SRRL code (with adain_weight 0)."""
        stage: int = -1
        """Tap whose statistics are transferred, 0 the stem, negative from the end."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        stage_taps(context, "AdaIN")
        if context.teacher_model is None or context.teacher is None:
            raise Incompatible("AdaIN runs the teacher on changed features: it cannot run from a cached table alone.")
        count, stage = len(context.teacher.maps), self.config.stage
        if not -count <= stage < count or not -len(context.student.maps) <= stage < len(context.student.maps):
            raise Incompatible(f"stage {stage} does not exist: the teacher has {count} taps, counted from 0.")
        self.stage = stage % count
        student, teacher = context.student.maps[stage], context.teacher.maps[stage]
        positive = bool((teacher >= 0).all())  # a tap after a ReLU: only then may the projection end in one (SRRL)
        self.connector = conv_norm(student.shape[1], teacher.shape[1], relu=positive, he_normal=True)
        self._teacher: tuple[Network] = (context.teacher_model,)  # in a tuple: neither trained nor saved with this

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        student = self.connector(full_precision(batch.student.maps[self.config.stage]))
        teacher, logits = full_precision(batch.teacher.maps[self.stage]), full_precision(batch.teacher.logits)
        tail = self._teacher[0].tail
        terms = {}
        if self.config.adain_weight:
            judged = tail(adain(teacher, student), self.stage)
            terms["adain"] = self.config.adain_weight * F.mse_loss(full_precision(judged), logits)
        if self.config.l2_weight:
            gaps = [F.mse_loss(s, t) for s, t in zip(statistics(student), statistics(teacher), strict=True)]
            terms["statistics"] = self.config.l2_weight * (gaps[0] + gaps[1])
        if self.config.srrl_weight:
            means = F.mse_loss(student.mean(dim=(2, 3)), teacher.mean(dim=(2, 3)))
            terms["srrl"] = self.config.srrl_weight * (
                means + F.mse_loss(full_precision(tail(student, self.stage)), logits)
            )
        return terms
