"""Label revision as a baseline of RLD: what the published LR numbers were made with.

The rows "LR" of RLD's tables (arXiv:2408.07703) come from its code (zju-SWJ/RLD, type REVISION), which is this
objective: squared errors with fixed weights. The paper that proposes label revision, Lan et al. (arXiv:2404.03693),
revises the teacher's output for distillation; its total loss is not public. That revision alone, for any logit
objective, is the plug-in `revise`. Both build the same revised target.
"""

from __future__ import annotations

from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from distillery.config import Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.plugins.revise import Eta, revised_log_probs
from distillery.objectives.soft import full_precision


def mean_over(rows: Tensor, subset: Tensor) -> Tensor:
    """Mean of (B,) values over the rows of a (B,) boolean subset, 0 if it is empty; no shape depends on the data."""
    return (rows * subset).sum() / subset.sum().clamp(min=1)


def revision_terms(student: Tensor, teacher: Tensor, labels: Tensor, eta: float = 0.8) -> tuple[Tensor, Tensor]:
    """MSE of the logits over the rows the teacher gets right, MSE of softmax(student) to the revised target over the
    others; each a mean over its own rows and the classes.

    (B, C) logits in, two scalars out. An empty subset counts 0.
    """
    student, teacher = full_precision(student), full_precision(teacher)
    right = teacher.argmax(dim=1) == labels
    target = revised_log_probs(teacher, labels, eta).exp()
    mse_logits = mean_over((student - teacher).square().mean(dim=1), right)
    mse_probs = mean_over((student.softmax(dim=1) - target).square().mean(dim=1), ~right)
    return mse_logits, mse_probs


class LabelRevision(Objective):
    """L = ce_weight * CE_right + lambda1 * MSE_right(logits) + lambda2 * MSE_wrong(probabilities).

    Each mean runs over its own subset, unweighted by the subset's size, and the rows the teacher gets wrong have no
    cross-entropy: both as released. lambda1 4, lambda2 1 and eta 0.8 are the constants of that code; the paper's own
    text and total loss are not public.
    """

    refuses = MappingProxyType(
        dict.fromkeys(("revise", "swap"), "this method revises by itself what the teacher gets wrong")
    )

    class Config(Objective.Config):
        idle = MappingProxyType({"eta": ({"lambda2": 0},)})

        eta: Eta = 0.8
        lambda1: Weight = 4.0
        """Of the squared gap of the logits, where the teacher is right."""
        lambda2: Weight = 1.0
        """Of the squared gap to the revised probabilities, where it is wrong."""

    config: Config

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        right = batch.teacher.logits.argmax(dim=1) == batch.labels
        rows = F.cross_entropy(full_precision(batch.student.logits), batch.labels, reduction="none")
        return {"ce": self.config.ce_weight * mean_over(rows, right)}

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = self.logits(batch.student.logits, batch.teacher.logits, batch.targets)
        mse_logits, mse_probs = revision_terms(student, teacher, batch.labels, self.config.eta)
        return {"mse_right": self.config.lambda1 * mse_logits, "mse_wrong": self.config.lambda2 * mse_probs}
