"""Class-wise effect of distillation ("What is Left After Distillation?", arXiv 2410.08407).

Overall accuracy may rise while single classes lose. For each class the change of its accuracy between two kinds of
model is compared with the change of overall accuracy by Welch's test over repeated trainings; the null hypothesis is
that the class changes exactly as much as the model does. The paper counts the significant classes of the distilled
against the non-distilled student (#SC) and against the teacher (#TC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from distillery.evaluation.statistics import ALPHA, SMALLEST, holm

_FLAT = 1e-9  # points; a spread below this is the rounding of the arithmetic


@dataclass(frozen=True)
class ClassChange:
    """How each of C classes changed from one kind of model to another, beyond the change of overall accuracy.

    Attributes:
        change: per class, points of accuracy gained more (or less) than the whole model did; nan without test images.
        p: per class, the p value of Welch's test; nan where nothing can be tested.
        significant: classes with p < 0.05, each for itself, as the paper counts.
        significant_holm: classes that remain with Holm's correction over the classes.
    """

    change: np.ndarray
    p: np.ndarray
    significant: int
    significant_holm: int


Rows = Sequence[Sequence[float | None] | np.ndarray]


def class_change(after: Rows, before: Rows, images: Sequence[int]) -> ClassChange | None:
    """Test every class.

    Args:
        after, before: C class accuracies (percent, None without test images) per trained model. If `before` is a single
            model (a fixed teacher), its accuracies are taken as they are and the test is a one-sample t test: it says
            whether a class differs from this very model, and many do from any one training (half of them, with ten
            models after). The paper's #TC is Welch's test against several trainings of the teacher.
        images: test images of each class, which turn class accuracies into overall accuracy.

    Returns:
        None if there are too few models: at least three after, and one or at least three before.
    """
    if len(after) < SMALLEST or not before or 1 < len(before) < SMALLEST:
        return None
    x, y = (_beyond_overall(rows, images) for rows in (after, before))
    change = x.mean(axis=0) - y.mean(axis=0)
    # Where no model of either kind differs from its like there is no spread to test with.
    flat = np.isnan(change) | ((x.std(axis=0) < _FLAT) & (y.std(axis=0) < _FLAT))
    p = np.full(len(change), np.nan)
    a, b = (m[:, ~flat].var(axis=0, ddof=1) / len(m) if len(m) > 1 else np.zeros((~flat).sum()) for m in (x, y))
    df = (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / max(1, len(y) - 1))
    p[~flat] = tested = 2 * special.stdtr(df, -np.abs(change[~flat]) / np.sqrt(a + b))
    return ClassChange(change, p, int((tested < ALPHA).sum()), int((np.array(holm(tested)) < ALPHA).sum()))


def _beyond_overall(rows: Rows, images: Sequence[int]) -> np.ndarray:
    """(models, C) class accuracies less the overall accuracy of each model."""
    accuracies = np.asarray(rows, dtype=float)  # None becomes nan
    overall = np.nansum(accuracies * np.asarray(images), axis=1, keepdims=True) / np.sum(images)
    return accuracies - overall


def disagreement(a: np.ndarray, b: np.ndarray, classes: int) -> np.ndarray:
    """Count the images that model `a` calls i and model `b` calls j, as a (C, C) matrix."""
    return np.bincount(a * classes + b, minlength=classes * classes).reshape(classes, classes)


def disagreement_rate(matrix: np.ndarray) -> float:
    """Images, in percent, on which the two models of a `disagreement` matrix differ."""
    return float(100 * (1 - np.trace(matrix) / matrix.sum()))
