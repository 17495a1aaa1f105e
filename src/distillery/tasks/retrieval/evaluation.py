"""What is measured about a network that retrieves labels: precision of its best, and how many the teacher finds too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from distillery.tasks.classification.evaluation import ClassEvaluation
from distillery.tasks.retrieval.training import BEST, best, hits_at


class RetrievalEvaluation(ClassEvaluation):
    """Outputs are the (N, L) scores of all labels for all test rows, on the CPU."""

    bulk: ClassVar[Mapping[str, DTypeLike]] = {"best": np.uint16}

    def measure(self, outputs: Tensor, data: Any) -> dict[str, Any]:
        """Precision at k in percent under `last`; `best` are the five best labels of every row."""
        hits = hits_at(outputs, data.test_sets.cpu())
        last = {f"precision@{k}": 100 * hits[k].mean().item() for k in BEST}
        return {"last": last, "best": best(outputs).tolist()}

    def compare(self, student: Tensor, teacher: Tensor) -> dict[str, float]:
        """The share of a row's five best that both find, over rows."""
        same = (best(student)[:, :, None] == best(teacher)[:, None, :]).any(2).double()
        return {"overlap@5": same.mean().item()}

    def truth(self, data: Any) -> dict[str, np.ndarray]:
        """The sets: row and label of every pair."""
        row, label = torch.nonzero(data.test_sets.cpu(), as_tuple=True)
        return {"row": row.numpy().astype(np.int32), "label": label.numpy().astype(np.uint16)}
