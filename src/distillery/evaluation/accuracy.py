"""Accuracy: top-1, top-5, per class, and the predictions themselves.

Plain torch: importing scikit-learn costs every evaluation job more than the arithmetic does. The tests compare with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillery.evaluation.places import places


def accuracy(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy in percent of (N, C) logits for (N,) labels, ties as in training (see places.py).

    Returns:
        `top1`, `top5` (of at most C classes), `per_class` (C numbers, null for a class without images) and
        `predictions` (the N predicted classes).
    """
    place = places(logits, labels)
    counts = torch.bincount(labels, minlength=logits.shape[1])
    right = torch.bincount(labels[place == 0], minlength=logits.shape[1])
    per_class = [round(100 * r / n, 6) if n else None for r, n in zip(right.tolist(), counts.tolist(), strict=True)]
    percent = len(labels) / 100  # divided by, as training does, so that both round alike
    return {
        "top1": int((place == 0).sum()) / percent,
        "top5": int((place < 5).sum()) / percent,
        "per_class": per_class,
        "predictions": logits.argmax(1).numpy(),
    }
