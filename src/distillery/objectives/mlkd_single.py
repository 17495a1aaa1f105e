"""MLKD on a single view, for comparison at the budget of every other method (RLD's code calls it MLKD_NOAUG)."""

from __future__ import annotations

from torch import Tensor

from distillery.objectives.base import Batch, Objective
from distillery.objectives.mlkd import MLKD, WEAK, instance_rows, weak_terms
from distillery.objectives.soft import full_precision


class MLKDSingle(Objective):
    """L = ce_weight * CE + kd_weight * (KL + class level + batch level), the weak-view terms of `mlkd`.

    Defaults as in `mlkd`; the released single-view runs train 240 epochs.
    """

    class Config(MLKD.Config):
        """As those of `mlkd`."""

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = full_precision(batch.student.logits), full_precision(batch.teacher.logits)
        pair = self.logits(student, teacher, batch.targets)
        kl = [instance_rows(*pair, t) for t in (self.config.temperature, *WEAK)]
        terms = weak_terms(student, teacher, kl, self.config.temperature, self.config.masks)
        return {name: self.config.kd_weight * term for name, term in terms.items()}
