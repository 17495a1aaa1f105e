"""MLKD on a single view, for comparison at the budget of every other method (RLD's code calls it MLKD_NOAUG)."""

from __future__ import annotations

from torch import Tensor

from distillery.objectives.base import Batch
from distillery.objectives.mlkd import MLKD, Tempered, instance_levels, weak_terms
from distillery.objectives.soft import full_precision


class MLKDSingle(Tempered):
    """L = ce_weight * CE + kd_weight * (KL + class level + batch level), the weak-view terms of `mlkd`.

    Defaults as in `mlkd`; the released single-view runs train 240 epochs.
    """

    class Config(MLKD.Config):
        """As those of `mlkd`."""

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = full_precision(batch.student.logits), full_precision(batch.teacher.logits)
        pair = self.logits(student, teacher, batch.targets)
        temperatures = self.temperatures(student)
        terms = weak_terms(student, teacher, instance_levels(*pair, temperatures), temperatures, self.config.masks)
        return {name: self.config.kd_weight * term for name, term in terms.items()}
