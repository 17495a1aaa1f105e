"""Sections about other measures: of every task, of single classes, and those that only a task knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distillery.report import measures
from distillery.report.results import Results
from distillery.report.sections.section import Head, Line, Section, Value, words
from distillery.report.table import Table
from distillery.report.text import MINUS, MISSING, decimals, number


def others(results: Results, table: Table) -> Section:
    columns = measures.shown(results.task)
    cells = [cell for cell in results if cell.runs]
    found = [[measures.of_cell(cell, column) for column in columns] for cell in cells]
    digits = [decimals([s.mean for s in column if s.mean is not None]) for column in zip(*found, strict=True)]
    rows = []
    for cell, summaries in zip(cells, found, strict=True):
        values = [
            Value(number(s.mean, d), "" if s.sd is None else number(s.sd, d), sort=s.mean)
            for s, d in zip(summaries, digits, strict=True)
        ]
        rows.append(Line((*words(table.label(cell.method), cell.pair), *values)))
    names = [column.name.replace("_", " ") for column in columns]
    return Section(
        "measures",
        "Other measures of the last epoch",
        (Head("method", False), Head("pair", False), *map(Head, names)),
        tuple(rows),
        notes=(
            *(["Mean ± standard deviation over runs."] if any(s.sd is not None for of in found for s in of) else []),
            *(f"{short}: {column.label}." for short, column in zip(names, columns, strict=True)),
        ),
        figures=("reliability", "logits"),
    )


def classwise(table: Table) -> Section:
    """Against a single teacher the count is not the published #TC, nor called so."""
    against = {"#TC" if e.teachers > 1 else "against this one teacher" for e in table.classwise}
    counts = [f"{name} (after Holm)" for name in ("#SC", " or ".join(sorted(against)))]
    names = [*counts, "differs from student alone, %", "differs from teacher, %"]

    def values(e: Any) -> Iterable[Value]:
        for n, holm in ((e.sc, e.sc_holm), (e.tc, e.tc_holm)):
            yield Value(MISSING if n is None else str(n), tail="" if n is None else f" ({holm})", sort=n)
        for rate in (e.alone_disagreement, e.teacher_disagreement):
            yield Value(number(rate, 1), sort=rate)

    rows = [Line((*words(table.label(e.method), e.pair), *values(e))) for e in table.classwise]
    header = (Head("method", False), Head("pair", False), *map(Head, names))
    text = []
    if rows:
        text.append(
            f"#SC: classes of {table.classwise[0].classes} that changed significantly more or less than overall "
            "accuracy, against the student trained alone (Welch's test over the runs; arXiv 2410.08407)."
        )
    if any(e.teachers > 1 for e in table.classwise):
        text.append("#TC: the same against several trainings of the teacher.")
    if any(e.teachers < 2 for e in table.classwise):
        text.append(
            "Against this one teacher: classes whose change from its own accuracies is significant. As those count as "
            "exact, this includes what sets one training apart from another; it is not the published #TC."
        )
    figures = ("classwise", "disagreement")
    return Section("classwise", "Class-wise effect", header, tuple(rows), notes=tuple(text), figures=figures)


def of_task(results: Results) -> list[Section]:
    """Tables that only the task knows."""
    found = []
    for i, told in enumerate(results.task.sections([cell for cell in results if cell.runs])):
        columns = list(zip(*told.rows, strict=True))
        numbers = [bool(column) and all(map(_numeric, column)) for column in columns] or [False] * len(told.header)
        header = tuple(Head(text, n) for text, n in zip(told.header, numbers, strict=True))
        rows = tuple(Line(tuple(Value(text, sort=_sorted_by(text)) for text in row)) for row in told.rows)
        notes = (told.note,) if told.note else ()
        found.append(Section(f"task-{i + 1}", told.title, header, rows, notes=notes))
    return found


def _numeric(text: str) -> bool:
    return text in ("", MISSING) or isinstance(_sorted_by(text), float)


def _sorted_by(text: str) -> float | str | None:
    """The number that a text begins with, or the text."""
    first = text.replace(MINUS, "-").split(" ")[0]
    try:
        return float(first)
    except ValueError:
        return None if text == MISSING else text
