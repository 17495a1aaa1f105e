"""What is measured about a classifier of samples in groups: what every classifier's is, and the gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.data.pictured import Pictured
from distillery.errors import DistilleryError
from distillery.evaluation.fairness import group_gaps, individual_unfairness
from distillery.tasks.classification.evaluation import ClassEvaluation

NO_GROUPS = "names no groups, between which `task: fairness` measures gaps: take adult, trifeature or one of your own"


class FairEvaluation(ClassEvaluation):
    """Outputs are the (N, C) logits of all test samples."""

    def measure(self, outputs: Tensor, data: Pictured) -> dict[str, Any]:
        """As for every classifier; gaps and individual unfairness under `last`, accuracy by group under `groups`."""
        if not isinstance(data, Dataset) or data.test_groups is None:
            raise DistilleryError(f"data.source {data.facts['source']} {NO_GROUPS}")
        found = super().measure(outputs, data)
        labels, groups = (t.cpu().numpy() for t in (data.test_labels, data.test_groups))
        predicted = found["predictions"]
        names = data.facts["groups"]["names"]
        if groups.min() == groups.max():
            raise DistilleryError(
                f"all test samples of data.source {data.facts['source']} are of one group, {names[int(groups[0])]}: "
                "there is no gap to measure"
            )
        right = {name: predicted[of] == labels[of] for i, name in enumerate(names) if (of := groups == i).any()}
        gaps = group_gaps(predicted, labels, groups, data.num_classes)
        gaps["individual"] = individual_unfairness(
            outputs.double().softmax(1).numpy(), _seen(data), self.task.config.model_dump()["pairs"]
        )
        return found | {
            "last": found["last"] | gaps,
            "groups": {name: round(100 * float(hits.mean()), 6) for name, hits in right.items()},
        }

    def truth(self, data: Pictured) -> dict[str, np.ndarray]:
        """Labels, and the group of every test sample."""
        assert isinstance(data, Dataset) and data.test_groups is not None
        return super().truth(data) | {"groups": data.test_groups.cpu().numpy().astype(np.uint8)}


def _seen(data: Dataset) -> np.ndarray:
    """(N, F) test samples as networks see them."""
    with torch.no_grad():
        return data.normalise(data.test_images).flatten(1).cpu().numpy()
