"""Statistics over seeds: what is known about a cell, and whether two methods differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation, n, half the width of the 95 % t interval; None where n is too small for it."""

    mean: float | None
    sd: float | None
    n: int
    ci95: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Summarise the runs of a cell."""
    n = len(values)
    if n == 0:
        return Summary(None, None, 0, None)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(mean, None, 1, None)
    sd = float(np.std(values, ddof=1))
    return Summary(mean, sd, n, float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n))
