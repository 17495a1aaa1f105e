"""Statistics over seeds: what is known about a cell, and whether two methods differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

ALPHA = 0.05
SMALLEST = 3  # fewer runs than this are never tested: nothing is bold and nothing gets an arrow
FLAT = 1e-9  # points; a spread below this is the rounding of the arithmetic


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation, n, half the width of the 95 % t interval; None where n is too small for it.

    Equal runs have no interval: accuracies are counts of test images, so that equal ones are a coincidence of the grid
    and no certainty.
    """

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
    if sd < FLAT:
        return Summary(mean, sd, n, None)
    return Summary(mean, sd, n, float(special.stdtrit(n - 1, 1 - ALPHA / 2)) * sd / math.sqrt(n))


def mean_and_sd(values: Sequence[float], digits: int) -> str:
    """Values as text, "mean ± sd": the mean alone of a single one, nothing without any."""
    s = summarise(values)
    if s.mean is None:
        return ""
    return f"{s.mean:.{digits}f}" + (f" ± {s.sd:.{digits}f}" if s.sd is not None else "")


@dataclass(frozen=True)
class Difference:
    """A paired difference: its summary over the seeds that both sides have, and the p value of the paired t test.

    `p` is None where nothing can be tested: fewer than three common seeds, or a spread of zero (see `Summary`).
    """

    summary: Summary
    p: float | None


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Compare accuracies by seed, `ours` minus `theirs`, with a two-sided paired t test."""
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    s = summarise(differences)
    if s.n < SMALLEST or s.mean is None or s.sd is None or s.sd < FLAT:
        return Difference(s, None)
    t = s.mean / (s.sd / math.sqrt(s.n))
    return Difference(s, float(2 * special.stdtr(s.n - 1, -abs(t))))  # a large table has thousands of these tests


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for all being looked at together (Holm, Scand. J. Statist. 6, 1979); order is kept."""
    adjusted, running, m = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def seeds_needed(
    difference: float, sd: float, power: float = 0.8, alpha: float = ALPHA, limit: int = 10_000
) -> int | None:
    """Return how many paired seeds a two-sided t test needs to see a true `difference` with the given power.

    `sd` is that of the paired differences. The smallest n >= 2 counts; None if more than `limit` are needed.
    """
    if difference == 0:
        return None
    if sd < FLAT:
        return 2
    low, high = 1, 2  # the power of n seeds grows with n: double, then halve the gap
    while _power(high, abs(difference) / sd, alpha) < power:
        low, high = high, 2 * high
        if low >= limit:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, abs(difference) / sd, alpha) >= power else (middle, high)
    return high if high <= limit else None


def _power(n: int, effect: float, alpha: float) -> float:
    """Power of the two-sided one-sample t test: the noncentral t distribution, integrated over the sample variance.

    scipy's own distribution function is nan for the large effects that a handful of seeds can have.
    """
    df, shift = n - 1, effect * math.sqrt(n)
    bounds, weights = _bounds(df, alpha)
    return float(weights @ (special.ndtr(shift - bounds) + special.ndtr(-shift - bounds)))


@cache
def _bounds(df: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The critical value at 400 quantiles of the sample variance (Gauss and Legendre's), and their weights."""
    nodes, weights = _gauss()
    critical = special.stdtrit(df, 1 - alpha / 2)
    return critical * np.sqrt(2 * special.gammaincinv(df / 2, (nodes + 1) / 2) / df), weights / 2


@cache
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return np.asarray(nodes), np.asarray(weights)


Scores = Sequence[ArrayLike]
"""One (..., runs) array per task (here: per pair); leading axes are repetitions of the bootstrap."""


def interquartile_mean(scores: Scores) -> np.ndarray:
    """Mean of the middle half of all runs of all tasks (Agarwal et al., NeurIPS 2021, as rliable computes it)."""
    runs = np.sort(np.concatenate([np.asarray(s, float) for s in scores], axis=-1), axis=-1)
    cut = runs.shape[-1] // 4
    return np.asarray(runs[..., cut : runs.shape[-1] - cut].mean(axis=-1))


def probability_of_improvement(ours: Scores, theirs: Scores) -> np.ndarray:
    """Chance that a run of ours beats one of theirs on a random task, ties counting half (rliable's definition).

    The Mann-Whitney statistic over n x m, averaged over tasks.
    """
    tasks = []
    for x, y in zip(ours, theirs, strict=True):
        gap = np.asarray(x, float)[..., :, None] - np.asarray(y, float)[..., None, :]
        tasks.append(((gap > 0) + 0.5 * (gap == 0)).mean(axis=(-2, -1)))
    return np.mean(tasks, axis=0)


def bootstrap(
    statistic: Callable[..., np.ndarray], *samples: Scores, aligned: bool = False, repeats: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `statistic(*samples)`, runs drawn anew within each task (stratified, as rliable).

    Tasks of one sample that have the same values have the same runs, and one draw serves them all: students trained
    alone are no others under another teacher. Drawn apart they would count as further runs, and the interval be too
    narrow. (Other runs that happen to have the same values make it a little too wide.)

    `aligned`: run i of every task of every sample has the same seed. Then seeds are drawn as well, alike for all tasks
    and samples, and the interval is from the lower of both low ends to the higher of both high ones. What a seed has in
    common in all tasks makes the first too narrow: of five tasks with five seeds it held for 0.66 of the draws where
    seeds decide everything, and for 0.68 where they decide half; the wider one for 0.84 and more (simulated).
    """
    generator = np.random.default_rng(seed)

    def draw(sample: Scores) -> list[np.ndarray]:
        drawn: dict[tuple[float, ...], np.ndarray] = {}
        tasks = [np.asarray(runs, float) for runs in sample]
        for values in tasks:
            if (key := tuple(values)) not in drawn:
                drawn[key] = values[generator.integers(len(values), size=(repeats, len(values)))]
        return [drawn[tuple(values)] for values in tasks]

    found = [statistic(*map(draw, samples))]
    if aligned:
        count = len(np.asarray(samples[0][0]))
        seeds = generator.integers(count, size=(repeats, count))
        found.append(statistic(*([np.asarray(runs, float)[seeds] for runs in sample] for sample in samples)))
    low, high = np.quantile(found, [ALPHA / 2, 1 - ALPHA / 2], axis=1)
    return float(low.min()), float(high.max())
