"""Swap the teacher's top entry with its label entry where the teacher is wrong, a baseline of RLD (arXiv:2408.07703).

The released baseline (zju-SWJ/RLD, type SWAP) has no cross-entropy: objective kd with ce_weight 0, kd_weight 1, T = 4
(ImageNet: 1), and this plug-in.
"""

from __future__ import annotations

from torch import Tensor

from distillery.objectives.base import Transform


def swap_top_and_label(teacher: Tensor, labels: Tensor) -> Tensor:
    """Exchange the entries at the arg-max and at the label, (B, C) logits in and out; no change where they coincide.

    Rows with label -1 (unlabelled) stay as they are.
    """
    top = teacher.argmax(dim=1, keepdim=True)
    label = labels.unsqueeze(1)
    label = label.where(label >= 0, top)
    return teacher.scatter(1, top, teacher.gather(1, label)).scatter(1, label, teacher.gather(1, top))


class Swap(Transform):
    """The teacher's logits with the right class on top, for any logit objective; runs before `standardise`."""

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return student, swap_top_and_label(teacher, labels)
