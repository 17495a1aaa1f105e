"""Sections about the main measure: the table, the differences to the baseline, all pairs together."""

from __future__ import annotations

from distillery.report import story
from distillery.report.results import Results
from distillery.report.sections.section import Head, Line, Section, Value
from distillery.report.table import BOLD, CONVENTIONS, Entry, Row, Table
from distillery.report.text import count_text, number, p_text

ACROSS = (
    "Percentile bootstrap over runs: not corrected, and no test. With few runs an interval such as [1.00, 1.00] only "
    "says that every run of one side was ahead."
)


def _header(table: Table) -> tuple[Head, ...]:
    return (Head("method", False), *(Head(f"{c.teacher}\n→ {c.student}") for c in table.columns))


def _label(row: Row) -> Value:
    return Value(row.label, sort=row.label, note=row.footnote)


def main(table: Table, caption: str = "") -> Section:
    def value(row: Row, pair: str) -> Value:
        e = row.entries[pair]
        unmeasured = row.kind == "teacher" and not e.n  # not a run that is missing: it has no such measure
        return Value(
            number(e.mean, e.digits),
            "" if e.sd is None else number(e.sd, e.digits),
            "" if unmeasured else f" {count_text(e)}",
            e.mark or "",
            e.best,
            e.mean,
            "" if e.difference is None else number(e.difference, e.digits, sign=True),
            f"{pair} {row.name}",
        )

    rows = [Line((_label(r), *(value(r, c.pair) for c in table.columns)), r.kind) for r in table.rows]
    return Section(
        "results",
        table.title,
        _header(table),
        tuple(rows),
        lead=story.headline(table),
        notes=table.notes,
        footnotes=table.footnotes,
        warnings=tuple(f"Missing: {line}" for line in table.missing),
        figures=("improvement", "differences"),
        caption=caption,
    )


def caption(results: Results, table: Table) -> str:
    """Of the main table in a paper: what was measured, on what, how it was trained, and what the signs mean."""
    measure, baseline = table.measure, table.label(table.baseline)
    ns = sorted({e.n for row in table.rows if row.kind != "teacher" for e in row.entries.values()})
    seeds = f"{ns[0]}" if len(ns) == 1 else f"{ns[0]} to {ns[-1]}"
    runs = "A single run" if ns[-1] == 1 else f"Mean ± standard deviation over {seeds} seeds"
    title = f"{measure.title[0].upper()}{measure.title[1:]}"
    told = [f"{title} on {story.data(results)}; {story.protocol(results)}. {runs}, {CONVENTIONS[table.convention]}."]
    if any(e.p is not None for row in table.rows for e in row.entries.values()):
        direction = "" if measure.higher_is_better else ", lower is better"
        told.append(
            f"Arrows: significantly better (up) or worse (down) than {baseline} (paired t-test, Holm-corrected p < "
            f"0.05{direction})."
        )
    if BOLD in table.notes:
        told.append("Bold: better than every other method.")
    return " ".join(told)


def differences(table: Table) -> Section:
    def value(e: Entry) -> Value:
        spread = "" if e.difference_ci95 is None else number(e.difference_ci95, e.digits)
        tail = "" if e.p is None else f", {p_text(e.p)}"
        return Value(number(e.difference, e.digits, sign=True), spread, tail, e.mark or "", sort=e.difference)

    compared = [r for r in table.rows if r.kind != "teacher" and r.name != table.baseline] if table.baseline else []
    rows = [Line((_label(r), *(value(r.entries[c.pair]) for c in table.columns)), r.kind) for r in compared]
    title = f"Difference to {table.label(table.baseline)} (95 % interval, corrected p)"
    return Section("differences", title, _header(table), tuple(rows))


def _interval(value: float | None, interval: tuple[float, float] | None, digits: int) -> Value:
    tail = f" [{number(interval[0], digits)}, {number(interval[1], digits)}]" if interval and value is not None else ""
    return Value(number(value, digits), tail=tail, sort=value)


def aggregates(table: Table) -> Section:
    improvement = f"probability of improvement on {table.label(table.baseline)}"
    header, title = (Head("method", False), Head("interquartile mean"), Head(improvement)), "Across pairs"
    rows = [
        Line(
            (
                Value(a.label, sort=a.label),
                _interval(a.iqm, a.iqm_interval, table.measure.digits),
                _interval(a.improvement, a.improvement_interval, 2),
            )
        )
        for a in table.aggregates
    ]
    heading, told = f"{title} (95 % bootstrap interval)", f"{title}. {ACROSS}"
    return Section("across", heading, header, tuple(rows), notes=(ACROSS,), caption=told)
