"""The reproduction ledger: every cell against every published number for the same thing, with a verdict."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from scipy import special

from distillery.evaluation.statistics import ALPHA, FLAT, Summary
from distillery.report.protocol import obstacles
from distillery.report.published import Published, dataset_of, method_name, of_pair
from distillery.report.recipes import precision_of
from distillery.report.results import CHOSEN, Cell, Results
from distillery.task import Measure

# torch's own choice, and so that of published numbers: convolutions in TF32 where the GPU has it.
USUAL = ("float32", "tf32")
AGREES, ABOVE, BELOW, NOT_COMPARABLE = "agrees", "above", "below", "not comparable"


@dataclass(frozen=True)
class Comparison:
    """One cell against one published number.

    `mean`, `sd`, `n` are ours under the number's own convention; `interval` is half the width of the difference's 95 %
    interval, None without a verdict.
    """

    pair: str
    method: str
    published: Published
    convention: str
    mean: float | None
    sd: float | None
    n: int
    difference: float | None
    verdict: str
    reason: str = ""
    interval: float | None = None


def ledger(results: Results) -> list[Comparison]:
    """Compare all cells that have runs and published counterparts, in the order of the study."""
    found = []
    for cell in results:
        if not cell.facts:
            continue
        name = method_name(results.study.methods[cell.method].for_pair(cell.pair))
        teachers = [t["architecture"] for t in cell.facts["teachers"].values()]
        if name is None or (len(teachers) != 1 and name != "student_ce"):
            continue
        ours = (teachers[0] if teachers else "", cell.facts["architecture"], name)
        found += [
            compare(cell, entry, results.study.data.labelled)
            for entry in of_pair(dataset_of(cell.facts["data"]["source"]), cell.measure.name, *ours)
        ]
    return found


def compare(cell: Cell, entry: Published, labelled: float = 1.0) -> Comparison:
    """Give the verdict on one number. One that does not say its convention needs the same verdict under both.

    `labelled`: see `protocol.obstacles`.
    """
    conventions = [entry.report] if entry.report in CHOSEN else ["last", "best"]
    summaries = [cell.summary(c) for c in conventions]
    ours = summaries[0]
    difference = None if ours.mean is None else ours.mean - entry.value

    def result(verdict: str, reason: str = "", interval: float | None = None) -> Comparison:
        mine = (conventions[0], ours.mean, ours.sd, ours.n)
        return Comparison(cell.pair, cell.method, entry, *mine, difference, verdict, reason, interval)

    if why := obstacles(cell, entry, labelled):
        return result(NOT_COMPARABLE, "; ".join(why))
    intervals = [interval(s, entry, cell.measure) for s in summaries]
    verdicts = {_verdict(s.mean, entry.value, width) for s, width in zip(summaries, intervals, strict=True)}
    if None in verdicts:
        return result(NOT_COMPARABLE, "neither our runs nor a published spread say how far such a number scatters")
    if len(verdicts) > 1:
        return result(NOT_COMPARABLE, "it does not say whether it is of the last or the best epoch, and that decides")
    notes = [] if len(conventions) == 1 else ["under either convention"]
    if entry.report == "validation":
        notes.append(f"ours of the tested epoch with the best {cell.measure.name} of the validation data")
    if (precision := precision_of(cell.facts["recipe"])) not in USUAL:
        notes.append(f"ours in {precision}")
    return result(str(verdicts.pop()), "; ".join(notes), intervals[0])


def interval(ours: Summary, entry: Published, measure: Measure) -> float | None:
    """Half the width of the 95 % interval of our mean less the published number; None if no spread is known.

    With a published spread the interval is Welch's. Without one, their number is taken as the mean of `trials` runs
    (one, if they do not say) that scatter like ours. Half a unit of the last digit that they print is added.
    Runs that are all equal are a coincidence, and no spread (see `statistics.Summary`).
    """
    trials, sd = entry.trials or 1, entry.sd
    known_spread = sd is not None and trials > 1
    if ours.n > 1 and ours.sd is not None and known_spread and sd is not None:
        a, b = ours.sd**2 / ours.n, sd**2 / trials
        error = math.sqrt(a + b)
        df = (a + b) ** 2 / (a**2 / (ours.n - 1) + b**2 / (trials - 1)) if error else 1.0
    elif ours.n > 1 and ours.sd is not None:
        error, df = ours.sd * math.sqrt(1 / ours.n + 1 / trials), ours.n - 1
    elif known_spread and sd is not None:
        error, df = sd * math.sqrt(1 + 1 / trials), trials - 1
    else:
        return None
    if error < FLAT:
        return None
    digits = measure.digits if entry.digits is None else entry.digits
    return float(special.stdtrit(df, 1 - ALPHA / 2)) * error + 0.5 * 10**-digits


def _verdict(mean: float | None, value: float, width: float | None) -> str | None:
    """Above or below where the difference leaves its interval; None without one."""
    if mean is None or width is None:
        return None
    return AGREES if abs(mean - value) <= width else ABOVE if mean > value else BELOW


def tally(comparisons: list[Comparison]) -> dict[str, int]:
    """Count numbers by verdict, and cells: `cells` that have any counterpart, `cells compared` that have a verdict."""
    counts = Counter(c.verdict for c in comparisons)
    cells = {(c.pair, c.method) for c in comparisons}
    compared = {(c.pair, c.method) for c in comparisons if c.verdict != NOT_COMPARABLE}
    agreeing = compared - {(c.pair, c.method) for c in comparisons if c.verdict in (ABOVE, BELOW)}
    numbers = {verdict: counts[verdict] for verdict in (AGREES, ABOVE, BELOW, NOT_COMPARABLE)}
    return numbers | {"cells": len(cells), "cells compared": len(compared), "cells agreeing": len(agreeing)}
