"""What stands below the main table: how its numbers read, and which runs are missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from distillery.report.results import Results
from distillery.report.verdicts import Verdict, explained, resolution
from distillery.task import Measure

CONVENTIONS = {
    "last": "the last epoch",
    "best": "the epoch that is best on the test set (optimistic: the test set chose it)",
}
BOLD = (
    "Bold: significantly better than every other method of its column (paired t-tests, Holm-corrected p < 0.05, over "
    "all pairs of methods of the table)."
)


def notes(results: Results, verdicts: dict[tuple[str, str], Verdict], bold: bool) -> list[str]:
    """What a reader must know to read the numbers. No sign is explained that the table does not have."""
    study, tables = results.study, results.study.tables
    main = results.task.main
    label = main.label[0].upper() + main.label[1:]
    direction = "" if main.higher_is_better else " (lower is better)"
    spread = "; mean ± standard deviation" if any(len(cell.runs) > 1 for cell in results) else ""
    told = [f"{label}{direction} of {CONVENTIONS[tables.convention]}{spread} (n runs, one per seed)."]
    if main.share and (count := results.first().get("test_images")):
        told.append(f"{count:,} test {results.sample}s: one {results.sample} is {100 / count:.2g} points.")
    if any(len(pair.teachers) > 1 for pair in study.pairs.values()):
        told.append("Where a pair has several teachers, the teacher row is their mean ± standard deviation.")
    teachers = [t for cell in results for t in cell.facts.get("teachers", {}).values()]
    if tables.convention != "last" and any("test_best" not in t for t in teachers):
        told.append("A teacher that was not trained here has no epochs: its number is that of its weights.")
    if tables.baseline:
        told += _about_differences(study.label(tables.baseline), resolution(results), verdicts, main)
    if kept := [f"{study.label(c.method)} ({_numbers(c.kept)})" for c in results if c.kept]:
        told.append(f"Measured earlier, by the code of their records, and kept without weights: {', '.join(kept)}.")
    if others := _taught_by_others(results):
        told.append(f"Taught by another training of the teacher than the one shown: {', '.join(others)}.")
    if bold:
        told.append(BOLD)
    return told


def _taught_by_others(results: Results) -> list[str]:
    """The runs of another teacher than their pair's first run had: it may have been trained again since."""
    found = []
    for cell in results:
        shown = _weights(results.first(cell.pair))
        others = [s for s, run in cell.runs.items() if _weights(run["facts"]).items() - shown.items()]
        if others:
            found.append(f"{cell.pair}, {results.study.label(cell.method)} ({_numbers(others)})")
    return found


def _weights(facts: dict[str, Any]) -> dict[str, Any]:
    """The hash of each teacher's weights, as far as a record says."""
    hashes = {name: teacher.get("trained", {}).get("sha256") for name, teacher in facts.get("teachers", {}).items()}
    return {name: known for name, known in hashes.items() if known}


def _about_differences(
    baseline: str, resolve: float | None, verdicts: dict[tuple[str, str], Verdict], measure: Measure
) -> list[str]:
    tested = [v for v in verdicts.values() if v.p is not None]
    untested = len(verdicts) - len(tested)
    why = f"{untested} of {len(verdicts)} could not be tested (fewer than 3 common seeds, or no spread)"
    if not tested:
        return [f"Differences are to {baseline}, paired by seed; {why}."]
    comparisons = f"over {len(tested)} comparison{'s' if len(tested) > 1 else ''}" + (f"; {why}" if untested else "")
    told = [
        f"Differences are to {baseline}, paired by seed. {explained((v.mark for v in tested), baseline)} "
        f"(paired t-test, Holm-corrected p < 0.05, {comparisons})."
    ]
    points = "-point" if measure.unit == "%" else ""
    if needed := [v.seeds_needed for v in tested if v.seeds_needed]:
        told.append(
            f"Detecting a {resolve:g}{points} difference from {baseline} with 80 % power needs {round(median(needed))} "
            f"seeds per method (median over the cells, {min(needed)} to {max(needed)}; for a single comparison)."
        )
    return told


def missing(results: Results) -> list[str]:
    """One line for each group of missing runs with the same reason."""
    lines = []
    for cell in results:
        reasons: dict[str, list[int]] = {}
        for seed, why in cell.missing.items():
            reasons.setdefault(why, []).append(seed)
        for why, seeds in reasons.items():
            lines.append(f"{cell.pair}, {cell.method}, {_numbers(seeds)}: {why}")
    return lines


def _numbers(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) != 1 else ''} {', '.join(ranges(seeds))}"


def ranges(seeds: Iterable[int]) -> list[str]:
    """Seeds in order, of three or more in a row the first and the last: "0 to 9"."""
    rows: list[list[int]] = []
    for seed in sorted(seeds):
        if rows and seed == rows[-1][-1] + 1:
            rows[-1].append(seed)
        else:
            rows.append([seed])
    return [text for row in rows for text in ([f"{row[0]} to {row[-1]}"] if len(row) > 2 else map(str, row))]
