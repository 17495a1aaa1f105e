"""The main table, free of any format: rows are methods, columns are pairs; below it what a reader must be told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from distillery.evaluation.statistics import summarise
from distillery.report import budget, glossary
from distillery.report.aggregate import Aggregate, across_pairs
from distillery.report.classwise import ClassEffect, effects
from distillery.report.ledger import Comparison, ledger
from distillery.report.notes import CONVENTIONS, missing, notes
from distillery.report.published import Published
from distillery.report.results import Cell, Results, score
from distillery.report.verdicts import Verdict, against_baseline, best_of_columns
from distillery.study.model import Study
from distillery.task import TOP1, Measure


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
    """One pair, with what its networks are called: a teacher by its key where another has the same architecture."""

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

    @property
    def repeated(self) -> bool:
        """Whether any cell has a spread over seeds."""
        return any(e.n > 1 for row in self.rows if row.kind != "teacher" for e in row.entries.values())

    def student(self, column: Column) -> str:
        """What stands for a student above its column: with the pair, where another has networks of the same names."""
        alike = [c for c in self.columns if (c.teacher, c.student) == (column.teacher, column.student)]
        return column.student if len(alike) == 1 else f"{column.student} ({column.pair})"

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
    verdicts, best, apart = against_baseline(results), best_of_columns(results), budget.footnotes(results)
    letters = {method: _letter(i) for i, method in enumerate(m for m in order if m in apart)}
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
        columns=tuple(
            Column(n, " + ".join(_called(study, t) for t in p.teachers), p.student) for n, p in study.pairs.items()
        ),
        rows=tuple(rows),
        aggregates=tuple(across_pairs(results)),
        notes=tuple(notes(results, verdicts, bool(best))),
        footnotes=(
            *(f"{letters[m]}: {apart[m]}" for m in letters),
            *(f"{s}: {b}, {glossary.MEANINGS[b]}" for b, s in glossary.SIGNS.items() if s in signs.values()),
        ),
        missing=tuple(missing(results)),
        published=tuple(ledger(results)),
        classwise=tuple(effects(results)),
    )


def alike(study: Study) -> dict[str, list[str]]:
    """The architectures that several teachers of pairs have, and the keys that tell these apart."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for pair in study.pairs.values() for name in pair.teachers):
        found.setdefault(study.teachers[name].architecture, []).append(name)
    return {architecture: names for architecture, names in found.items() if len(names) > 1}


def _called(study: Study, name: str) -> str:
    """A teacher's architecture or, where another has the same, its key."""
    architecture = study.teachers[name].architecture
    return name if name in alike(study).get(architecture, []) else architecture


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
