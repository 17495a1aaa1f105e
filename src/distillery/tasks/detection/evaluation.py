"""What is measured about a detector: average precision, by size and by class, and its agreement with the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torchvision.ops import box_iou

from distillery.data.precision import dtype_of
from distillery.evaluation.macs import multiply_accumulates
from distillery.evaluation.task import Evaluation
from distillery.models.base import Network
from distillery.study.blocks import Recipe
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.drawing import examples
from distillery.tasks.detection.loader import BoxLoader
from distillery.tasks.detection.precision import average_precision
from distillery.tasks.detection.predictions import SURE
from distillery.tasks.detection.testing import detect
from distillery.tasks.detection.training import example_of


class BoxEvaluation(Evaluation):
    """Outputs are the (N, 100, 6) detections in the test images: corners in pixels, score, class."""

    bulk: ClassVar[Mapping[str, DTypeLike]] = {"detections": np.float32}

    def outputs(
        self, network: Network, data: BoxData, recipe: Recipe, predict: Callable[[Any], Any] | None = None
    ) -> NDArray[np.float32]:
        loader = BoxLoader(data, recipe)
        found: NDArray[np.float32] = detect(
            network.to(data.device, dtype_of(recipe)), loader.splits()["test"], recipe
        ).numpy()
        return found

    def measure(self, outputs: NDArray[np.float32], data: BoxData) -> dict[str, Any]:
        """The measures under `last`, AP by size under `sizes`, by class under `classes`; the detections themselves."""
        main, by_size, by_class = average_precision(outputs, data.test, data.class_names)
        return {"last": main, "sizes": by_size, "classes": by_class, "detections": outputs}

    def compare(self, student: NDArray[np.float32], teacher: NDArray[np.float32]) -> dict[str, float | None]:
        """Of the teacher's detections with score 0.3 and more: the share that the student has (same class, IoU 0.5).

        None where it has none.
        """
        met = counted = 0
        for mine, theirs in zip(student, teacher, strict=True):
            of_mine, of_theirs = (torch.from_numpy(x[x[:, 4] >= SURE]) for x in (mine, theirs))
            counted += len(of_theirs)
            if len(of_mine) and len(of_theirs):
                same = of_theirs[:, None, 5] == of_mine[None, :, 5]
                met += int(((box_iou(of_theirs[:, :4], of_mine[:, :4]) >= 0.5) & same).any(1).sum())
        return {"agreement": met / counted if counted else None}

    def facts(self, data: BoxData) -> dict[str, Any]:
        return {"test_images": len(data.test), "data": data.facts}

    def truth(self, data: BoxData) -> dict[str, np.ndarray]:
        """The objects of the test images, and a few of these images."""
        objects = ("starts", "boxes", "labels", "crowd", "area")
        return {f"test_{key}": data.test.columns[key] for key in objects} | examples(data)

    def multiply_accumulates(self, network: Network, data: BoxData) -> int:
        """Of an image of the size of the first test image. Sampling between pixels is not counted."""
        network.requires_grad_(False)  # the counter hooks gradients, and a parameter that is an input has none here
        return multiply_accumulates(network.cpu().float(), example_of(data))  # type: ignore[arg-type]
