"""LR: label revision of the teacher, Lan et al., "Improve knowledge distillation via label revision and data
selection" (arXiv:2404.03693, TCDS 2025)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.objectives.base import Plugin
from distillery.objectives.soft import full_precision


def trust(teacher: Tensor, labels: Tensor, eta: float = 0.8) -> Tensor:
    """Weight of the teacher's probabilities in the revised target: eta / (p_max - p[y] + 1), (B, C) logits to (B,).

    Below 1 / (p_max - p[y] + 1) the label becomes the arg-max of the target, so any eta < 1 makes it so.
    """
    p = full_precision(teacher).softmax(dim=1)
    return eta / (p.amax(dim=1) - p.gather(1, labels.unsqueeze(1)).squeeze(1) + 1)


def revised_log_probs(teacher: Tensor, labels: Tensor, eta: float = 0.8) -> Tensor:
    """log(b * softmax(teacher) + (1 - b) * onehot(labels)), b = trust(...): (B, C) logits in, log-probabilities out.

    Built in log space: a class whose probability underflows keeps a finite logarithm.
    """
    b = trust(teacher, labels, eta).unsqueeze(1)
    column = labels.unsqueeze(1)
    scaled = F.log_softmax(full_precision(teacher), dim=1) + b.log()
    return scaled.scatter(1, column, torch.logaddexp(scaled.gather(1, column), torch.log1p(-b)))


class Revise(Plugin):
    """Replace the teacher's logits by those of the revised target where it is wrong, for any logit objective.

    The revised probabilities enter as their logarithms, so that the host applies its own temperature to them. Rows
    where the teacher is right, and rows with label -1 (unlabelled), stay as they are. eta = 0.8 is what the code of
    RLD (zju-SWJ/RLD) fixes; 1 gives a tie between the label and the teacher's class. Runs before `standardise`.
    """

    def __init__(self, *, eta: float = 0.8) -> None:
        super().__init__()
        if not 0 < eta <= 1:
            raise ValueError(f"plug-in revise: eta must lie in (0, 1], not {eta}")
        self.eta = eta

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        wrong = (teacher.argmax(dim=1) != labels) & (labels >= 0)
        revised = revised_log_probs(teacher, labels.clamp(min=0), self.eta)
        return student, torch.where(wrong.unsqueeze(1), revised, full_precision(teacher))
