"""CE: the student trained alone, on the labels."""

from __future__ import annotations

from distillery.objectives.base import Objective


class CE(Objective):
    """L = ce_weight * CE(student, labels). No teacher, no label smoothing (the CIFAR-100 protocol has none)."""

    needs = frozenset()
