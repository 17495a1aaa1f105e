"""What is measured about a classifier: accuracy, calibration, fidelity to its teachers, the scale of its logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from distillery.data.pictured import Pictured
from distillery.data.precision import dtype_of, memory_format
from distillery.evaluation.accuracy import accuracy
from distillery.evaluation.calibration import calibration
from distillery.evaluation.fidelity import fidelity, logit_scale
from distillery.evaluation.macs import multiply_accumulates
from distillery.evaluation.task import Evaluation
from distillery.models.base import Network, Outputs, anchor
from distillery.study.blocks import Recipe
from distillery.training.testing import predictions


class ClassEvaluation(Evaluation):
    """Outputs are the (N, C) float32 logits of all test images, on the CPU."""

    bulk: ClassVar[Mapping[str, DTypeLike]] = {"predictions": np.uint16, "per_class": np.float64}

    def outputs(
        self, network: Network, data: Pictured, recipe: Recipe, predict: Callable[[Outputs], Tensor] | None = None
    ) -> Tensor:
        """Batches, precision and mode are those of the tests while training: the last epoch's accuracy to the image."""
        loader = data.loader(recipe)
        network = network.to(loader.device, dtype_of(recipe)).to(memory_format=memory_format(recipe)).eval()

        def logits(images: Tensor) -> Tensor:
            outputs = network(images)
            return predict(outputs) if predict else outputs.logits

        parts = predictions(logits, loader.splits()["test"], recipe, loader.device)
        return torch.cat([prediction.float().cpu() for prediction, _ in parts])

    def measure(self, outputs: Tensor, data: Pictured) -> dict[str, Any]:
        return measured(outputs, data.test_labels.cpu())

    def compare(self, student: Tensor, teacher: Tensor) -> dict[str, float]:
        return fidelity(student, teacher)

    def facts(self, data: Pictured) -> dict[str, Any]:
        return {"test_images": len(data.test_labels), "data": data.facts}

    def truth(self, data: Pictured) -> dict[str, np.ndarray]:
        return {"labels": data.test_labels.cpu().numpy().astype(np.uint16)}

    def multiply_accumulates(self, network: Network, data: Pictured) -> int:
        weight = anchor(network)
        return multiply_accumulates(network, data.normalise(data.example().to(weight.device), weight.dtype))


def measured(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Everything that (N, C) test logits say by themselves; accuracy under `last`, the epoch the weights are from."""
    scores = accuracy(logits, labels)
    last = {"top1": scores.pop("top1"), "top5": scores.pop("top5")}
    return {"last": last} | scores | calibration(logits, labels) | {"logits": logit_scale(logits)}
