"""MLKD on a single view, for comparison at the budget of every other method (RLD's code calls it MLKD_NOAUG)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.mlkd import WEAK, instance_rows, weak_terms
from distillery.objectives.soft import full_precision


class MLKDSingle(Objective):
    """L = ce_weight * CE + kd_weight * (KL + class level + batch level), the weak-view terms of `mlkd`.

    Defaults as in `mlkd`; the released single-view runs train 240 epochs.
    """

    def __init__(
        self,
        context: Context,
        *,
        temperature: float = 4.0,
        masks: Literal["released", "rows"] = "released",
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
    ) -> None:
        super().__init__(context, ce_weight=ce_weight)
        self.temperature = temperature
        self.masks: Literal["released", "rows"] = masks
        self.kd_weight = kd_weight

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = full_precision(batch.student.logits), full_precision(batch.teacher.logits)
        pair = self.logits(student, teacher, batch.labels)
        kl = [instance_rows(*pair, t) for t in (self.temperature, *WEAK)]
        terms = weak_terms(student, teacher, kl, self.temperature, self.masks)
        return {name: self.kd_weight * term for name, term in terms.items()}
