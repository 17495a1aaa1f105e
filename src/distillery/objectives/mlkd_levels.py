"""The three levels of multi-level logit distillation (CVPR 2023) on their own: one view, one temperature, no mask."""

from __future__ import annotations

from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Objective
from distillery.objectives.mlkd import correlation_rows, instance_rows


class MLKDLevels(Objective):
    """L = ce_weight * CE + instance_weight * KL + batch_weight * batch level + class_weight * class level.

    The instance level carries T^2, the correlations do not. With `standardise` only the instance level is
    standardised. Weights 0.1 and 0.9 are those of `mlkd`; set two of the three to 0 to study one level.
    """

    class Config(Objective.Config):
        temperature: Positive = 4.0
        instance_weight: Weight = 0.9
        batch_weight: Weight = 0.9
        class_weight: Weight = 0.9
        ce_weight: Weight = 0.1

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        by_batch, by_class = correlation_rows(student, teacher, self.config.temperature)
        instance = instance_rows(*self.logits(student, teacher, batch.targets), self.config.temperature)
        return {
            "instance": self.config.instance_weight * instance.mean(),
            "batch": self.config.batch_weight * by_batch.mean(),
            "class": self.config.class_weight * by_class.mean(),
        }
