"""Which differences of a table are supported: against the baseline (arrows), and the best of a column (bold)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from distillery.evaluation.statistics import ALPHA, SMALLEST, Difference, holm, paired, seeds_needed
from distillery.report.results import Results
from distillery.task import Measure

Key = tuple[str, str]  # pair, method
K = TypeVar("K")


@dataclass(frozen=True)
class Verdict:
    """A cell against the baseline of its column. `p` is corrected over the table; None if the cell was not tested."""

    difference: Difference
    p: float | None
    seeds_needed: int | None
    measure: Measure

    @property
    def mark(self) -> str | None:
        """ "better" or "worse" where the corrected test supports it."""
        if self.p is None or self.p >= ALPHA or self.difference.summary.mean is None:
            return None
        return "better" if self.measure.gain(self.difference.summary.mean) > 0 else "worse"


def against_baseline(results: Results) -> dict[Key, Verdict]:
    """Compare every cell with the baseline's of the same pair, paired by seed; Holm's correction over all of them."""
    tables, found = results.study.tables, {}
    if tables.baseline is None:
        return {}
    for cell in results:
        if cell.method != tables.baseline:
            other = results.cells[cell.pair, tables.baseline]
            found[cell.pair, cell.method] = paired(cell.scores(tables.convention), other.scores(tables.convention))
    corrected = _corrected(found)
    main, resolve = results.task.main, resolution(results)
    return {key: Verdict(d, corrected.get(key), _seeds(d, resolve), main) for key, d in found.items()}


def explained(marks: Iterable[str | None], baseline: str) -> str:
    """What the arrows of a table say: of those that it has, or that there are none."""
    seen = {*marks}
    found = [(sign, mark) for sign, mark in (("▲", "better"), ("▼", "worse")) if mark in seen]
    if not found:
        return f"None is significantly better or worse than {baseline}"
    signs, words = ("/".join(texts) for texts in zip(*found, strict=True))
    return f"{signs}: significantly {words} than {baseline}"


def resolution(results: Results) -> float | None:
    """The difference of which tables say how many seeds show it: `tables.resolve`, or half a point of percentages."""
    usual = 0.5 if results.task.main.unit == "%" else None
    return results.study.tables.resolve or usual


def _seeds(difference: Difference, resolve: float | None) -> int | None:
    """Fewer than are ever tested are not enough, however little they scatter."""
    if difference.p is None or resolve is None:
        return None
    needed = seeds_needed(resolve, difference.summary.sd or 0.0)
    return None if needed is None else max(SMALLEST, needed)


def best_of_columns(results: Results) -> set[Key]:
    """Cells that beat every other method of their column.

    All pairs of methods are compared in every column and corrected together, because the best is picked after looking.
    """
    convention, found = results.study.tables.convention, {}
    for pair in results.study.pairs:
        for a, b in combinations(results.column(pair), 2):
            found[pair, a.method, b.method] = paired(a.scores(convention), b.scores(convention))
    corrected = _corrected(found)
    wins: dict[Key, int] = {}
    for key, p in corrected.items():
        mean, (pair, first, second) = found[key].summary.mean, key
        if p < ALPHA and mean is not None:
            winner = (pair, first if results.task.main.gain(mean) > 0 else second)
            wins[winner] = wins.get(winner, 0) + 1
    return {key for key, count in wins.items() if count == len(results.study.methods) - 1}


def _corrected(found: dict[K, Difference]) -> dict[K, float]:
    tested = {key: d.p for key, d in found.items() if d.p is not None}
    return dict(zip(tested, holm(list(tested.values())), strict=True))
