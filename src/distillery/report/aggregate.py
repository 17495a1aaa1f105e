"""Methods across all pairs, as rliable does it: interquartile mean, probability of improvement on the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from distillery.evaluation.statistics import SMALLEST, bootstrap, interquartile_mean, probability_of_improvement
from distillery.report.results import Results

Interval = tuple[float, float]


@dataclass(frozen=True)
class Aggregate:
    """One method over all pairs; intervals (95 %, bootstrap) only where every cell has three runs."""

    method: str
    label: str
    iqm: float
    iqm_interval: Interval | None
    improvement: float | None
    improvement_interval: Interval | None


def across_pairs(results: Results) -> list[Aggregate]:
    """Aggregate the methods that have runs in every pair; none for a study of a single pair."""
    study, tables = results.study, results.study.tables
    if len(study.pairs) < 2:
        return []
    by_seed = {m: [results.cells[p, m].scores(tables.convention) for p in study.pairs] for m in study.methods}
    scores = {m: [list(found.values()) for found in cells] for m, cells in by_seed.items()}
    seeds = {m: {tuple(found) for found in cells} for m, cells in by_seed.items()}
    baseline = scores.get(tables.baseline or "", [])
    found = []
    for method in study.methods:
        runs = scores[method]
        if not all(runs):
            continue
        enough = min(map(len, runs)) >= SMALLEST
        chance = interval = None
        if method != tables.baseline and baseline and all(baseline):
            chance = float(probability_of_improvement(*_higher(results, runs, baseline)))
            if enough and min(map(len, baseline)) >= SMALLEST:
                aligned = len(seeds[method] | seeds[tables.baseline or ""]) == 1
                interval = bootstrap(probability_of_improvement, *_higher(results, runs, baseline), aligned=aligned)
        found.append(
            Aggregate(
                method,
                study.label(method),
                float(interquartile_mean(runs)),
                bootstrap(interquartile_mean, runs, aligned=len(seeds[method]) == 1) if enough else None,
                chance,
                interval,
            )
        )
    return found


def _higher(results: Results, *cells: list[list[float]]) -> list[list[list[float]]]:
    """Scores as numbers of which more is better."""
    return [[[results.task.main.gain(value) for value in runs] for runs in scores] for scores in cells]
