"""Swap: where the teacher is wrong, its top and its label entry change places; a baseline of RLD (arXiv:2408.07703).

The released baseline (zju-SWJ/RLD, type SWAP) has no cross-entropy: objective kd with ce_weight 0, kd_weight 1, T = 4
(ImageNet: 1), and this plug-in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.objectives.base import Transform
from distillery.objectives.soft import one_hot


def swap_top_and_label(teacher: Tensor, labels: Tensor) -> Tensor:
    """Exchange the entries at the arg-max and at the label, (B, C) logits in and out; no change where they coincide.

    Rows with label -1 (unlabelled) stay as they are.
    """
    top = teacher.argmax(dim=1)
    at_top, at_label = one_hot(top, teacher), one_hot(labels.where(labels >= 0, top), teacher)
    high, low = teacher.amax(dim=1, keepdim=True), teacher.masked_fill(~at_label, 0.0).sum(dim=1, keepdim=True)
    return torch.where(at_label, high, torch.where(at_top, low, teacher))


class Swap(Transform):
    """The teacher's logits with the right class on top, for any logit objective; runs before `standardise`."""

    corrects = True

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return student, swap_top_and_label(teacher, labels)
