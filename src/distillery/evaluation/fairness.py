"""Gaps between groups, where the data set names them ("What is Left After Distillation?", arXiv:2410.08407)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]


def group_gaps(predicted: Integers, labels: Integers, groups: Integers, num_classes: int) -> dict[str, float]:
    """Demographic parity difference and equalised odds difference of predictions, each 0 (equal) to 1.

    Args:
        predicted, labels, groups: (N,) integers: predicted class, true class, group.
        num_classes: C. With two classes, class 1 is the favourable one. With more, every class is taken against the
            rest, and the largest gap counts (our extension: the paper's data sets are binary).

    Demographic parity: largest minus smallest P(predicted = class | group). Equalised odds: the larger of the same gaps
    in the true and the false positive rate; a group without images of one kind has no rate and is left out of that gap.
    """
    classes = [1] if num_classes == 2 else range(num_classes)
    everyone = np.ones(len(labels), dtype=bool)
    parity = [_gap(predicted == c, everyone, groups) for c in classes]
    odds = [_gap(predicted == c, part, groups) for c in classes for part in (labels == c, labels != c)]
    return {"demographic_parity": max(parity), "equalised_odds": max(odds)}


def _gap(hits: Integers, among: Integers, groups: Integers) -> float:
    """Largest minus smallest rate of `hits` among the chosen images of each group."""
    rates = [hits[chosen].mean() for g in np.unique(groups) if (chosen := among & (groups == g)).any()]
    return float(max(rates) - min(rates)) if rates else 0.0
