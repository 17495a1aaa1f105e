"""The main table, free of any format: rows are methods, columns are pairs; below it what a reader must be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import median
from typing import Any

from distillery.evaluation.statistics import SMALLEST, summarise
from distillery.report import budget, glossary
from distillery.report.aggregate import Aggregate, across_pairs
from distillery.report.classwise import ClassEffect, effects
from distillery.report.ledger import Comparison, ledger
from distillery.report.published import Published
from distillery.report.results import Cell, Results, score
from distillery.report.verdicts import Verdict, against_baseline, best_of_columns, resolution
from distillery.task import TOP1, Measure

CONVENTIONS = {
    "last": "the last epoch",
    "best": "the epoch that is best on the test set (optimistic: the test set chose it)",
}


BOLD = "Bold: better than every other method of its column, tested likewise over all pairs of methods of the table."


@dataclass(frozen=True)
class Entry:
    """One cell as it is shown.

    Attributes:
        mean, sd, n, ci95: of the task's main measure, over the n runs of the `expected` ones; `values` by `seeds`.
        difference, difference_ci95: to the baseline, over the seeds that both have, and half its 95 % interval.
        p: of the paired test of that difference, corrected over the table; None if it was not tested.
        mark: "better" or "worse" than the baseline where the test supports it.
        best: it beats every other method of its column, tested likewise.
        seeds_needed: to detect a difference of `tables.resolve` from the baseline; None if that says none.
        digits: decimals that are shown.
    """

    mean: float | None
    sd: float | None
    n: int
    expected: int
    ci95: float | None = None
    values: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    difference: float | None = None
    difference_ci95: float | None = None
    p: float | None = None
    mark: str | None = None
    best: bool = False
    seeds_needed: int | None = None
    digits: int = 2


@dataclass(frozen=True)
class Row:
    """One line: a method (or the teacher), and its entry in every column."""

    name: str
    label: str
    kind: str  # "teacher" | "alone" | "method"
    entries: dict[str, Entry]
    footnote: str = ""  # the letters and signs of its footnotes


@dataclass(frozen=True)
class Column:
    """One pair, with the names of its networks."""

    pair: str
    teacher: str
    student: str


@dataclass(frozen=True)
class Table:
    """The main table of a study."""

    title: str
    study: str
    convention: str
    measure: Measure
    baseline: str | None
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    aggregates: tuple[Aggregate, ...]
    notes: tuple[str, ...]
    footnotes: tuple[str, ...]
    missing: tuple[str, ...]
    published: tuple[Comparison, ...] = ()
    classwise: tuple[ClassEffect, ...] = ()

    def label(self, method: str | None) -> str:
        return next((row.label for row in self.rows if row.name == method), method or "a baseline")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Table:
        """Read what any version wrote: keys that are gone are left out, and those that are new have their defaults.

        Raises KeyError, TypeError or AttributeError if it is no table.
        """
        made: dict[str, Any] = {k: tuple(content[k]) for k in ("notes", "footnotes", "missing")}
        rows = ({**row, "entries": {p: _made(Entry, e) for p, e in row["entries"].items()}} for row in content["rows"])
        made["rows"] = tuple(_made(Row, row) for row in rows)
        made["columns"] = tuple(_made(Column, column) for column in content["columns"])
        made["aggregates"] = tuple(_made(Aggregate, aggregate) for aggregate in content["aggregates"])
        numbers = ({**c, "published": _made(Published, c["published"])} for c in content["published"])
        made["published"] = tuple(_made(Comparison, c) for c in numbers)
        made["classwise"] = tuple(_made(ClassEffect, effect) for effect in content["classwise"])
        made["measure"] = _made(Measure, content.get("measure", asdict(TOP1)))  # once all tables were of accuracy
        table: Table = _made(cls, content | made)
        return table


def _made(kind: type[Any], content: dict[str, Any]) -> Any:
    """A dataclass of those entries that it has."""
    return kind(**{f.name: content[f.name] for f in fields(kind) if f.name in content})


def build(results: Results) -> Table:
    """Lay out a study's results: the teacher, students trained without one, then the methods, in the study's order."""
    study, convention = results.study, results.study.tables.convention
    alone = [m for m, spec in study.methods.items() if spec.objective == results.task.plain and not spec.plus]
    order = alone + [m for m in study.methods if m not in alone]
    verdicts, best, notes = against_baseline(results), best_of_columns(results), budget.footnotes(results)
    letters = {method: _letter(i) for i, method in enumerate(m for m in order if m in notes)}
    signs = {m: glossary.SIGNS.get(glossary.basis(study.methods[m]), "") for m in order}
    rows = [_teacher_row(results)]
    for method in order:
        entries = {
            pair: _entry(results.cells[pair, method], convention, verdicts.get((pair, method)), (pair, method) in best)
            for pair in study.pairs
        }
        kind = "alone" if method in alone else "method"
        rows.append(Row(method, study.label(method), kind, entries, letters.get(method, "") + signs[method]))
    return Table(
        title=f"{study.study}: {results.task.main.title}, {CONVENTIONS[convention].partition(' (')[0]}",
        study=study.study,
        convention=convention,
        measure=results.task.main,
        baseline=study.tables.baseline,
        columns=tuple(Column(n, " + ".join(p.teachers), p.student) for n, p in study.pairs.items()),
        rows=tuple(rows),
        aggregates=tuple(across_pairs(results)),
        notes=tuple(_notes(results, verdicts)),
        footnotes=(
            *(f"{letters[m]}: {notes[m]}" for m in letters),
            *(f"{s}: {b}, {glossary.MEANINGS[b]}" for b, s in glossary.SIGNS.items() if s in signs.values()),
        ),
        missing=tuple(_missing(results)),
        published=tuple(ledger(results)),
        classwise=tuple(effects(results)),
    )


def _letter(i: int) -> str:
    return chr(ord("a") + i % 26) * (1 + i // 26)


def _teacher_row(results: Results) -> Row:
    convention, entries = results.study.tables.convention, dict[str, Entry]()
    measure = results.task.main
    for pair in results.study.pairs:
        teachers = results.first(pair).get("teachers", {})
        # A fetched teacher has one score, that of its file, whatever the convention.
        found = (score(t, convention if "test_best" in t else "last", measure) for t in teachers.values())
        values = [value for value in found if value is not None]
        s = summarise(values)
        entries[pair] = Entry(s.mean, s.sd, s.n, len(results.study.pairs[pair].teachers), digits=measure.digits)
    return Row("teacher", "teacher", "teacher", entries)


def _entry(cell: Cell, convention: str, verdict: Verdict | None, best: bool) -> Entry:
    values, s = cell.scores(convention), cell.summary(convention)
    entry = Entry(s.mean, s.sd, s.n, len(cell.expected), s.ci95, tuple(values.values()), tuple(values), best=best)
    entry = replace(entry, digits=cell.measure.digits)
    if verdict is None:
        return entry
    d = verdict.difference.summary
    return replace(
        entry,
        difference=d.mean,
        difference_ci95=d.ci95,
        p=verdict.p,
        mark=verdict.mark,
        seeds_needed=verdict.seeds_needed,
    )


def _notes(results: Results, verdicts: dict[tuple[str, str], Verdict]) -> list[str]:
    """What a reader must know to read the numbers."""
    study, tables = results.study, results.study.tables
    main = results.task.main
    label = main.label[0].upper() + main.label[1:]
    direction = "" if main.higher_is_better else " (lower is better)"
    notes = [
        f"{label}{direction} of {CONVENTIONS[tables.convention]}; mean ± standard deviation (n runs, one per seed)."
    ]
    if main.share and (count := results.first().get("test_images")):
        notes.append(f"{count:,} test {results.sample}s: one {results.sample} is {100 / count:.2g} points.")
    if any(len(pair.teachers) > 1 for pair in study.pairs.values()):
        notes.append("Where a pair has several teachers, the teacher row is their mean ± standard deviation.")
    if tables.baseline:
        notes += _about_differences(study.label(tables.baseline), resolution(results), verdicts, main)
    if kept := [f"{study.label(c.method)} ({_numbers(c.kept)})" for c in results if c.kept]:
        notes.append(f"Measured earlier, by the code of their records, and kept without weights: {', '.join(kept)}.")
    if others := _taught_by_others(results):
        notes.append(f"Taught by another training of the teacher than the one shown: {', '.join(others)}.")
    if max(len(cell.runs) for cell in results) >= SMALLEST:
        notes.append(BOLD)
    return notes


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
    notes = [
        f"Differences are to {baseline}, paired by seed. ▲/▼: significantly better/worse than {baseline} "
        f"(paired t-test, Holm-corrected p < 0.05, {comparisons})."
    ]
    points = "-point" if measure.unit == "%" else ""
    if needed := [v.seeds_needed for v in tested if v.seeds_needed]:
        notes.append(
            f"Detecting a {resolve:g}{points} difference from {baseline} with 80 % power needs {round(median(needed))} "
            f"seeds per method (median over the cells, {min(needed)} to {max(needed)}; for a single comparison)."
        )
    return notes


def _missing(results: Results) -> list[str]:
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
    return f"seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}"
