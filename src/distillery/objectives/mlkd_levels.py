"""The three levels of multi-level logit distillation (CVPR 2023) on their own: one view, one temperature, no mask."""

from __future__ import annotations

from torch import Tensor

from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.mlkd import correlation_rows, instance_rows


class MLKDLevels(Objective):
    """L = ce_weight * CE + instance_weight * KL + batch_weight * batch level + class_weight * class level.

    The instance level carries T^2, the correlations do not. With `standardise` only the instance level is
    standardised. Weights 0.1 and 0.9 are those of `mlkd`; set two of the three to 0 to study one level.
    """

    def __init__(
        self,
        context: Context,
        *,
        temperature: float = 4.0,
        instance_weight: float = 0.9,
        batch_weight: float = 0.9,
        class_weight: float = 0.9,
        ce_weight: float = 0.1,
    ) -> None:
        super().__init__(context, ce_weight=ce_weight)
        self.temperature = temperature
        self.weights = {"instance": instance_weight, "batch": batch_weight, "class": class_weight}

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        by_batch, by_class = correlation_rows(student, teacher, self.temperature)
        instance = instance_rows(*self.logits(student, teacher, batch.labels), self.temperature)
        levels = {"instance": instance, "batch": by_batch, "class": by_class}
        return {name: self.weights[name] * rows.mean() for name, rows in levels.items()}
