"""The main table, free of any format: rows are methods, columns are pairs; below it what a reader must be told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from distillery.evaluation.statistics import summarise
from distillery.reporting.results import Cell, Results, accuracy

CONVENTIONS = {
    "last": "the last epoch",
    "best": "the epoch that is best on the test set (optimistic: the test set chose it)",
}


@dataclass(frozen=True)
class Entry:
    """One cell as it is shown: accuracy in percent over n of `expected` runs, and the difference to the baseline."""

    mean: float | None
    sd: float | None
    n: int
    expected: int
    ci95: float | None = None
    difference: float | None = None
    values: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line: a method (or the teacher), and its entry in every column."""

    name: str
    label: str
    kind: str  # "teacher" | "alone" | "method"
    entries: dict[str, Entry]


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
    baseline: str | None
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Table:
        rows = tuple(
            Row(**{**row, "entries": {p: Entry(**entry) for p, entry in row["entries"].items()}})
            for row in content["rows"]
        )
        lists = {k: tuple(content[k]) for k in ("notes", "missing")}
        columns = tuple(Column(**column) for column in content["columns"])
        return cls(**{**content, **lists, "columns": columns, "rows": rows})


def build(results: Results) -> Table:
    """Lay out a study's results: the teacher, students trained without one, then the methods, in the study's order."""
    study, convention = results.study, results.study.tables.convention
    alone = [m for m, spec in study.methods.items() if spec.objective == "ce" and not spec.plus]
    order = alone + [m for m in study.methods if m not in alone]
    rows = [_teacher_row(results)]
    for method in order:
        entries = {pair: _entry(results, results.cells[pair, method]) for pair in study.pairs}
        rows.append(
            Row(method, study.methods[method].label or method, "alone" if method in alone else "method", entries)
        )
    columns = [Column(n, " + ".join(p.teachers), p.student) for n, p in study.pairs.items()]
    return Table(
        title=f"{study.study}: test accuracy in percent, {CONVENTIONS[convention].partition(' (')[0]}",
        study=study.study,
        convention=convention,
        baseline=study.tables.baseline,
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(_notes(results)),
        missing=tuple(_missing(results)),
    )


def _teacher_row(results: Results) -> Row:
    convention, entries = results.study.tables.convention, {}
    for pair in results.study.pairs:
        teachers = results.first(pair).get("teachers", {})
        values = [accuracy(teacher, convention) for teacher in teachers.values()]
        summary = summarise(values)
        entries[pair] = Entry(summary.mean, summary.sd, summary.n, len(results.study.pairs[pair].teachers))
    return Row("teacher", "teacher", "teacher", entries)


def _entry(results: Results, cell: Cell) -> Entry:
    convention, baseline = results.study.tables.convention, results.study.tables.baseline
    values, s = cell.top1(convention), cell.summary(convention)
    difference = None
    if baseline and baseline != cell.method:
        other = results.cells[cell.pair, baseline].top1(convention)
        differences = [values[seed] - other[seed] for seed in values if seed in other]
        difference = summarise(differences).mean
    return Entry(s.mean, s.sd, s.n, len(cell.expected), s.ci95, difference, tuple(values.values()), tuple(values))


def _notes(results: Results) -> list[str]:
    """What a reader must know to read the numbers."""
    study = results.study
    notes = [
        f"Test accuracy of {CONVENTIONS[study.tables.convention]}; mean ± standard deviation (n runs, one per seed)."
    ]
    if count := results.first().get("test_images"):
        notes.append(f"{count:,} test images: one image is {100 / count:.2g} points.")
    if study.tables.baseline:
        label = study.methods[study.tables.baseline].label or study.tables.baseline
        notes.append(f"Differences are to {label}, paired by seed.")
    return notes


def _missing(results: Results) -> list[str]:
    """One line for each group of missing runs with the same reason."""
    lines = []
    for cell in results:
        reasons: dict[str, list[int]] = {}
        for seed, why in cell.missing.items():
            reasons.setdefault(why, []).append(seed)
        for why, seeds in reasons.items():
            word = "seed" if len(seeds) == 1 else "seeds"
            lines.append(f"{cell.pair}, {cell.method}, {word} {', '.join(map(str, seeds))}: {why}")
    return lines
