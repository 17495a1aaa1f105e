"""Staged: Wang, Tang, "The staged knowledge distillation in video classification" (arXiv:2307.05201), our reading.

Only the abstract is public: knowledge is distilled by combinations of student substages and the correlation of
corresponding ones, in a progressive cascade against the gap in capacity, under pseudo-labels that improve weak labels,
with a loss on feature distributions. Formulas, weights and networks are not; those below are this project's declared
design, for any network with stages:
    substages    f_1 ... f_S: the maps after each stage, pooled over positions, deepest with deepest if the networks
                 have different numbers of them
    correlation  sum_s mean_(i,j) (R_s - R_t)^2, R the cosines (B, B) of the batch's features, each centred
    distribution sum_s tau^2 * KL(softmax(f_t / tau) || softmax(P_s f_s / tau)) over channels; P_s is linear, trained
                 with the student, and the identity where the widths are equal
    labels       cross-entropy with m * onehot(y) + (1 - m) * p_t, p_t = softmax(z_t), m = p_t[y] / max p_t: the
                 teacher's confidence in the label against that in its own class. A label that the teacher shares stays
    cascade      over `cascade_epochs` = E the stages are added one by one: stage s learns by its two terms from epoch
                 1 + floor((s - 1) * E / S) on, and labels and logits count after epoch E. A stage that is not yet
                 added, and the classifier, have a gradient of zero (weight decay acts on them as always)
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

import torch
from pydantic import model_validator
from torch import Tensor, nn

from distillery.config import Epochs, Positive, Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import centre, stage_taps, stages, unit
from distillery.objectives.kd import kd_loss
from distillery.objectives.soft import full_precision, kl_rows, one_hot


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared gap of the cosines between the centred rows, scalar; (B, d_s) and (B, d_t) features in."""
    s, t = (unit(centre(full_precision(x))) for x in (student, teacher))
    return (s @ s.T - t @ t.T).square().mean()


def distribution_loss(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    """tau^2 * mean_B KL(softmax(teacher/tau) || softmax(student/tau)) over channels, scalar; (B, d) features in."""
    return tau**2 * kl_rows(student, teacher, tau).mean()


def pseudo_labels(teacher: Tensor, labels: Tensor) -> Tensor:
    """m * onehot(y) + (1 - m) * p, p = softmax(teacher), m = p[y] / max p; (B, C) logits, (B,) classes to (B, C)."""
    p = full_precision(teacher).softmax(dim=1)
    at_label = one_hot(labels, p)
    trust = p.masked_fill(~at_label, 0.0).sum(dim=1, keepdim=True) / p.amax(dim=1, keepdim=True)
    return trust * at_label + (1 - trust) * p


class Staged(Objective):
    """L = cascade(ce_weight * CE(pseudo-labels) + kd_weight * KD) + correlation_weight * sum_s correlation
    + distribution_weight * sum_s distribution, the sums over the stages that are added (see the module).

    CE and KD have the defaults of `kd`: with both other weights 0, no pseudo-labels and no cascade it is `kd`.
    """

    needs = frozenset({"logits", "maps"})

    class Config(Objective.Config):
        idle = MappingProxyType(
            {
                "temperature": ({"kd_weight": 0},),
                "tau": ({"distribution_weight": 0},),
                "pseudo_labels": ({"ce_weight": 0},),
            }
        )

        ce_weight: Weight = 0.1
        kd_weight: Weight = 0.9
        """Of the gap between the logits."""
        temperature: Positive = 4.0
        """Of both softmaxes of the logits; their term is multiplied by its square."""
        correlation_weight: Weight = 20.0
        distribution_weight: Weight = 1.0
        """Of the term on distributions over channels."""
        tau: Positive = 1.0
        """Of both softmaxes over channels; their term is multiplied by its square."""
        pseudo_labels: bool = True
        """Whether the teacher corrects labels; with false they are taken as they are."""
        cascade_epochs: Epochs = 0.0
        """Over which stages are added one by one; how many are right depends on the recipe, 0 is no cascade."""

        @model_validator(mode="after")
        def _trained(self) -> Staged.Config:
            if self.cascade_epochs and not self.correlation_weight and not self.distribution_weight:
                raise ValueError(
                    "cascade_epochs: nothing is trained in them if correlation_weight and distribution_weight are 0"
                )
            return self

    config: Config

    @classmethod
    def faults(cls, config: Config, epochs: int, teachers: int, hidden: bool) -> Iterator[str]:
        if (cascade := config.cascade_epochs) >= epochs:
            yield f"cascade_epochs: {cascade:g} leave none of {epochs} epochs to train the classifier in: give fewer"

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        pairs = [(s.shape[1], t.shape[1]) for s, t in stage_taps(context, "staged")]
        self.project = nn.ModuleList(
            nn.Linear(s, t, bias=False) if s != t and self.config.distribution_weight else nn.Identity()
            for s, t in pairs
        )

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        if self.config.ce_weight == 0:
            return {}
        targets = batch.targets
        if self.config.pseudo_labels:
            targets = pseudo_labels(batch.teacher.logits, batch.labels)
        return {"ce": self._complete(batch) * self.config.ce_weight * self.cross_entropy(batch.student.logits, targets)}

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        terms, c = dict[str, Tensor](), self.config
        pairs = [(full_precision(s).mean((2, 3)), full_precision(t).mean((2, 3))) for s, t in stages(batch)]
        if c.kd_weight:
            student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
            terms["kd"] = self._complete(batch) * c.kd_weight * kd_loss(student, teacher, c.temperature)
        if c.correlation_weight:
            found = [correlation_loss(s, t) for s, t in pairs]
            terms["correlation"] = c.correlation_weight * self._added(found, batch.epoch)
        if c.distribution_weight:
            found = [distribution_loss(p(s), t, c.tau) for p, (s, t) in zip(self.project, pairs, strict=True)]
            terms["distribution"] = c.distribution_weight * self._added(found, batch.epoch)
        return terms

    def _added(self, losses: list[Tensor], epoch: Tensor) -> Tensor:
        """The sum of the losses of those stages that are added in this epoch."""
        step = self.config.cascade_epochs / len(losses)
        return sum(
            (torch.where(epoch > s * step, loss, 0.0) for s, loss in enumerate(losses)), start=epoch.new_zeros(())
        )

    def _complete(self, batch: Batch) -> Tensor:
        """1 once all stages are added, before that 0."""
        return (batch.epoch > self.config.cascade_epochs).to(batch.student.logits.dtype)
