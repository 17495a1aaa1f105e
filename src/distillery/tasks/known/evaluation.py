"""What is measured where the class probabilities are known: the distance to Bayes' rule, and how the risk varies."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from distillery.data.pictured import Pictured
from distillery.tasks.classification.evaluation import ClassEvaluation
from distillery.tasks.known.training import bayes_log_probs, excess


class KnownEvaluation(ClassEvaluation):
    """Outputs are the (N, C) logits of all test rows."""

    def measure(self, outputs: Tensor, data: Pictured) -> dict[str, Any]:
        """As for every classifier; `risk` are mean and variance over rows of the loss with labels and with p*.

        Both means are the same risk, up to the draw of the test rows' labels; divided by N, the variances are those of
        the empirical risk of N rows (propositions 2 and 3 of the paper).
        """
        found, bayes = super().measure(outputs, data), bayes_log_probs(data).cpu()  # type: ignore[arg-type]
        losses = -F.log_softmax(outputs.double(), dim=1)
        kinds = {
            "labels": losses.gather(1, data.test_labels.cpu()[:, None])[:, 0],
            "bayes": (bayes.exp() * losses).sum(1),
        }
        squared = (outputs.double().softmax(1) - bayes.exp()).square().sum(1).mean()
        found["last"] |= {"excess": excess(outputs, bayes), "distance": float(squared)}
        return found | {"risk": {kind: _moments(rows) for kind, rows in kinds.items()}}

    def compare(self, student: Tensor, teacher: Tensor) -> dict[str, float]:
        """As for every classifier; mean and variance over rows of the loss with the teacher's probabilities."""
        rows = (teacher.double().softmax(1) * -F.log_softmax(student.double(), dim=1)).sum(1)
        return super().compare(student, teacher) | {f"risk_{k}": v for k, v in _moments(rows).items()}


def _moments(rows: Tensor) -> dict[str, float]:
    return {"mean": float(rows.mean()), "variance": float(rows.var())}
