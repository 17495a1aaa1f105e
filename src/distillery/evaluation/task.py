"""What a task gives to the stage that evaluates: what is measured about a trained network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distillery.study.blocks import Recipe
from distillery.task import Task

if TYPE_CHECKING:
    from distillery.models.base import Network


class Evaluation:
    """Base of every task's part "evaluation". `data` is whatever the part "training" loaded.

    Attributes:
        images_each: images that a step shows to student and live teacher for each training sample.
        bulk: what of `measure`'s results is kept as arrays beside the metrics, and in which type.
    """

    images_each: ClassVar[int] = 1
    bulk: ClassVar[Mapping[str, DTypeLike]] = {}

    def __init__(self, task: Task) -> None:
        self.task = task

    def outputs(self, network: Network, data: Any, recipe: Recipe, predict: Callable[[Any], Any] | None = None) -> Any:
        """What a network says about the test set, on the CPU. `predict` picks what a method is judged by."""
        raise TypeError(f"{type(self).__name__} defines no outputs()")

    def measurable(self, outputs: Any) -> bool:
        """Whether there is neither NaN nor infinity in outputs that are a tensor, or an array of fractions."""
        if isinstance(outputs, np.ndarray):
            return outputs.dtype.kind != "f" or bool(np.isfinite(outputs).all())
        return not hasattr(outputs, "isfinite") or bool(outputs.isfinite().all())

    def measure(self, outputs: Any, data: Any) -> dict[str, Any]:
        """Everything that outputs say by themselves: the task's measures under "last", and what else is shown."""
        raise TypeError(f"{type(self).__name__} defines no measure()")

    def compare(self, student: Any, teacher: Any) -> Mapping[str, float | None]:
        """How far a student's outputs are its teacher's."""
        return {}

    def facts(self, data: Any) -> dict[str, Any]:
        """What records and tables say about the data: `test_images` (samples) and `data`."""
        raise TypeError(f"{type(self).__name__} defines no facts()")

    def truth(self, data: Any) -> dict[str, np.ndarray]:
        """What the bulk of every run is compared with: arrays by name."""
        return {}

    def multiply_accumulates(self, network: Network, data: Any) -> int:
        """Of one forward pass for one sample."""
        raise TypeError(f"{type(self).__name__} defines no multiply_accumulates()")
