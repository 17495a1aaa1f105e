"""Group gaps against numbers counted by hand, and against scikit-learn's rates."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import recall_score

from distillery.evaluation.fairness import group_gaps


def test_binary_gaps_counted_by_hand() -> None:
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    labels = np.array([1, 1, 0, 0, 1, 1, 0, 0])
    predicted = np.array([1, 1, 1, 0, 1, 0, 0, 0])
    # P(1 | 0) = 3/4, P(1 | 1) = 1/4; true positives 1 against 1/2; false positives 1/2 against 0
    assert group_gaps(predicted, labels, groups, 2) == {"demographic_parity": 0.5, "equalised_odds": 0.5}
    assert group_gaps(labels, labels, groups, 2) == {"demographic_parity": 0.0, "equalised_odds": 0.0}


def test_many_classes_take_the_largest_gap() -> None:
    rng = np.random.default_rng(0)
    labels, predicted, groups = (rng.integers(0, n, 600) for n in (5, 5, 3))
    recalls = np.stack([recall_score(labels[groups == g], predicted[groups == g], average=None) for g in range(3)])
    gaps = group_gaps(predicted, labels, groups, 5)
    assert gaps["equalised_odds"] >= (recalls.max(0) - recalls.min(0)).max() - 1e-12
    shares = np.stack([np.bincount(predicted[groups == g], minlength=5) / (groups == g).sum() for g in range(3)])
    assert gaps["demographic_parity"] == pytest.approx((shares.max(0) - shares.min(0)).max())


def test_a_group_without_positives_has_no_true_positive_rate() -> None:
    gaps = group_gaps(np.array([1, 0, 0]), np.array([1, 0, 0]), np.array([0, 0, 1]), 2)
    assert gaps == {"demographic_parity": 0.5, "equalised_odds": 0.0}
