"""Whether a measure rises or falls with a parameter, over repeated measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, slots=True)
class Trend:
    """Page's test in both directions.

    Attributes:
        p_rising, p_falling: one-sided p values: of "the measure rises (falls) from one condition to the next".
        slope: mean over blocks of the least-squares slope over the conditions numbered 0, 1, 2, ...
    """

    p_rising: float
    p_falling: float
    slope: float

    @property
    def p(self) -> float:
        """Two-sided: of either direction."""
        return min(1.0, 2 * min(self.p_rising, self.p_falling))


def page_trend(blocks: Sequence[Sequence[float]]) -> Trend:
    """Page's L test (JASA 58, 1963) for ordered alternatives; exact for few blocks, as scipy chooses.

    Args:
        blocks: B >= 2 rows of k >= 3 values, one for each condition in their order; rows are independent.
    """
    values = np.round(np.asarray(blocks, dtype=float), 9)  # equal means of other sums differ in their last bit: ties
    rising = stats.page_trend_test(values)
    falling = stats.page_trend_test(-values)
    numbers = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    slope = (values @ numbers).mean() / np.square(numbers).sum()
    return Trend(float(rising.pvalue), float(falling.pvalue), float(slope))


def crossed(values: Sequence[Sequence[Sequence[float]]]) -> Trend:
    """Page's test of measurements that two factors cross: the larger p of the two ways to form blocks.

    Blocks of one factor share the draws of the other: the students of all teachers have the same seeds, and what a
    seed does to a condition shows in every teacher's block. Teachers as blocks would make certain of a trend what
    five odd seeds have in common.

    Args:
        values: (A, B, k), A >= 2; the blocks are the A means over B and, if B >= 2, the B means over A.
    """
    found = np.asarray(values, dtype=float)
    ways = [page_trend(found.mean(axis=axis).tolist()) for axis in (1, 0) if found.shape[1 - axis] > 1]
    return Trend(max(t.p_rising for t in ways), max(t.p_falling for t in ways), ways[0].slope)
