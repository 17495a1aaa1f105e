"""LR: Lan et al., "Improve knowledge distillation via label revision and data selection" (arXiv:2404.03693, TCDS 2025).

This is the label revision of the paper: the target put right, for whichever logit objective it is added to. What RLD
(arXiv:2408.07703) tabulates as LR is the same target in a loss of squared errors: the objective `label_revision`.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from distillery.objectives.base import Transform
from distillery.objectives.soft import full_precision, one_hot

Eta = Annotated[float, Field(gt=0, le=1)]


def trust(teacher: Tensor, labels: Tensor, eta: float = 0.8) -> Tensor:
    """Weight of the teacher's probabilities in the revised target: eta / (p_max - p[y] + 1), (B, C) logits to (B,).

    Below 1 / (p_max - p[y] + 1) the label becomes the arg-max of the target, so any eta < 1 makes it so.
    """
    p = full_precision(teacher).softmax(dim=1)
    return eta / (p.amax(dim=1) - p.masked_fill(~one_hot(labels, p), 0.0).sum(dim=1) + 1)


def revised_log_probs(teacher: Tensor, labels: Tensor, eta: float = 0.8) -> Tensor:
    """log(b * softmax(teacher) + (1 - b) * onehot(labels)), b = trust(...): (B, C) logits in, log-probabilities out.

    Built in log space: a class whose probability underflows keeps a finite logarithm.
    """
    b = trust(teacher, labels, eta).unsqueeze(1)
    scaled = F.log_softmax(full_precision(teacher), dim=1) + b.log()
    at_label = one_hot(labels, scaled)
    own = scaled.masked_fill(~at_label, 0.0).sum(dim=1, keepdim=True)
    return torch.where(at_label, torch.logaddexp(own, torch.log1p(-b)), scaled)


class Revise(Transform):
    """Replace the teacher's logits by those of the revised target where it is wrong, for any logit objective.

    The revised probabilities enter as their logarithms plus the log-sum-exp of the teacher's logits: the host applies
    its own temperature to them, and one that reads the level of the logits finds the teacher's. Rows where the teacher
    is right, and rows with label -1 (unlabelled), stay as they are. With eta = 1 the label and the teacher's class tie.
    Runs before `standardise`.
    """

    corrects = True

    class Config(Transform.Config):
        eta: Eta = 0.8
        """Below 1 the label wins; what the code of RLD (zju-SWJ/RLD) fixes."""

    config: Config

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        wrong = (teacher.argmax(dim=1) != labels) & (labels >= 0)
        teacher = full_precision(teacher)
        revised = revised_log_probs(teacher, labels.clamp(min=0), self.config.eta) + teacher.logsumexp(1, keepdim=True)
        return student, torch.where(wrong.unsqueeze(1), revised, teacher)
