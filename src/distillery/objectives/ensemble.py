"""Ensemble KD: "Unified and effective ensemble knowledge distillation" (arXiv:2204.00548).

The paper's formulas are not public; only their intent is: teachers weighted by their correctness on each labelled
image, the image's loss by the ensemble's, and the loss of an unlabelled image by the teachers' disagreement. The
formulas below are this project's declared design:
    target      p = sum_k w_k softmax(z_k / T); labelled rows: w_k proportional to the correctness c_k of teacher k;
                unlabelled rows: w_k = 1/K
    correctness "probability": c_k = p_k[y], at T = 1, and of the ensemble mean_k p_k[y];
                "inverse_loss": c_k = 1 / (1 + CE_k), and of the ensemble 1 / (1 + mean_k CE_k), CE_k = -log p_k[y]:
                nearer to the same authors' FedKD (released code), which divides by losses, and MT-BERT
    scale       labelled rows: the ensemble's correctness; unlabelled rows: 1 + disagreement, the generalised
                Jensen-Shannon divergence of the p_k (T = 1) divided by log K, which lies in [0, 1]
    loss        T^2 * mean_B scale * KL(p || softmax(z_s / T))
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.soft import full_precision, tempered

UNLABELLED = -1
Correctness = Literal["probability", "inverse_loss"]


def label_log_probs(teachers: Tensor, labels: Tensor) -> Tensor:
    """Each teacher's log-probability of the label, (K, B, C) logits and (B,) labels in, (K, B) out; 0 if unlabelled."""
    columns = labels.clamp(min=0).expand(len(teachers), -1).unsqueeze(2)
    at_label = F.log_softmax(teachers, dim=2).gather(2, columns).squeeze(2)
    return torch.where(labels == UNLABELLED, 0.0, at_label)


def combined_log_probs(teachers: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """log sum_k w_k softmax(z_k / T), (K, B, C) logits and (K, B) log-weights in, (B, C) out."""
    return (F.log_softmax(teachers / temperature, dim=2) + weights.unsqueeze(2)).logsumexp(dim=0)


def disagreement(teachers: Tensor) -> Tensor:
    """Generalised Jensen-Shannon divergence of the teachers over log K, (K, B, C) logits in, (B,) in [0, 1] out."""
    count = len(teachers)
    log_p = F.log_softmax(teachers, dim=2)
    mean = log_p.logsumexp(dim=0) - math.log(count)
    divergence = (log_p.exp() * (log_p - mean)).sum(dim=2).mean(dim=0)
    return (divergence / math.log(max(count, 2))).clamp(0, 1)


def ensemble_loss(
    student: Tensor,
    teachers: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    correctness: Correctness = "probability",
    weighting: bool = True,
    scaling: bool = True,
    disagreeing: bool = True,
    judged: Tensor | None = None,
) -> Tensor:
    """T^2 * mean_B scale * KL(p || softmax(student/T)) (see the module), (B, C), (K, B, C), (B,) in, scalar out.

    Label -1 marks an unlabelled row. With one teacher this is KD scaled by that teacher's correctness. Without
    `weighting` all w_k are 1/K; without `scaling` labelled rows and without `disagreeing` unlabelled ones count 1:
    without all three it is KD from the mean of the teachers' probabilities. `judged`: logits by which correctness and
    disagreement are taken, where those to learn from were changed, (K, B, C).
    """
    teachers = full_precision(teachers)
    judged = teachers if judged is None else full_precision(judged)
    at_label = label_log_probs(judged, labels)
    if correctness == "probability":
        log_correct, together = at_label, at_label.exp().mean(dim=0)
    else:
        log_correct, together = -torch.log1p(-at_label), 1 / (1 - at_label.mean(dim=0))
    weights = F.log_softmax(log_correct if weighting else torch.zeros_like(at_label), dim=0)
    log_p = combined_log_probs(teachers, weights, temperature)
    log_q = F.log_softmax(tempered(student, temperature), dim=1)
    one = torch.ones_like(together)
    scale = torch.where(
        labels == UNLABELLED, 1 + disagreement(judged) if disagreeing else one, together if scaling else one
    )
    rows = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * (scale * rows).mean()


class Ensemble(Objective):
    """L = ce_weight * CE(labelled rows) + kd_weight * ensemble_loss over all teachers of the batch.

    T 4 and the weights 0.1 and 0.9 are taken over from KD. Logit plug-ins act on each teacher in turn; how right the
    teachers are, and how far they disagree, is what they said themselves.
    """

    needs = frozenset({"logits", "teachers"})
    unlabelled = True

    class Config(Objective.Config):
        idle = MappingProxyType({"correctness": ({"weighting": False, "scaling": False},)})

        temperature: Positive = 4.0
        ce_weight: Weight = 0.1
        kd_weight: Weight = 0.9
        correctness: Correctness = "probability"
        """How it is measured; the default is bounded by the image itself, the other one is the authors' habit."""
        weighting: bool = True
        """Weight teachers by their correctness, on labelled images."""
        scaling: bool = True
        """Weight labelled images by the ensemble's correctness."""
        disagreement: bool = True
        """Weight unlabelled images by the teachers' disagreement."""

    config: Config

    @classmethod
    def faults(cls, config: Config, epochs: int, teachers: int, hidden: bool) -> Iterator[str]:
        said = [key for key in ("weighting", "disagreement") if not getattr(config, key)]
        if teachers == 1:
            yield from (f"{key}: has no effect with one teacher: leave it out" for key in said)
        elif "disagreement" in said and not hidden:
            yield "disagreement: has no effect: every image has its label (data.labelled): leave it out"

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        logits, labelled = full_precision(batch.student.logits), batch.labels != UNLABELLED
        total = F.cross_entropy(logits, batch.labels, ignore_index=UNLABELLED, reduction="sum")
        return {"ce": self.config.ce_weight * total / labelled.sum().clamp(min=1)}

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        pairs = [self.logits(batch.student.logits, teacher.logits, batch.targets) for teacher in batch.teachers]
        teachers = torch.stack([teacher for _, teacher in pairs])
        judged = torch.stack([teacher.logits for teacher in batch.teachers]) if self.plugins else teachers
        c = self.config
        options = (c.temperature, c.correctness, c.weighting, c.scaling, c.disagreement)
        return {"kd": c.kd_weight * ensemble_loss(pairs[0][0], teachers, batch.labels, *options, judged)}
