"""Sections about the main measure: the table, the differences to the baseline, all pairs together."""

from __future__ import annotations

from collections import Counter

from distillery.evaluation.statistics import SMALLEST
from distillery.report import story
from distillery.report.notes import CONVENTIONS
from distillery.report.results import Results
from distillery.report.sections.section import Head, Line, Section, Value
from distillery.report.table import Entry, Row, Table, alike
from distillery.report.text import count_text, counted, listed, number, p_text
from distillery.report.verdicts import explained

ACROSS = (
    "Percentile bootstrap over runs: not corrected, and no test. With few runs an interval such as [1.00, 1.00] only "
    "says that every run of one side was ahead. Runs are drawn for each pair apart, as rliable draws them, and where "
    "all pairs have the same seeds, seeds alike for all: the wider interval counts. With three seeds either holds less "
    "often than it says."
)
NO_INTERVAL = f"No test, and no interval: that takes {SMALLEST} runs of every cell."


def _header(table: Table) -> tuple[Head, ...]:
    return (Head("method", False), *(Head(f"{c.teacher}\n→ {table.student(c)}") for c in table.columns))


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
    entries = [e for row in table.rows if row.kind != "teacher" for e in row.entries.values()]
    title = f"{measure.title[0].upper()}{measure.title[1:]}"
    told = [
        f"{title} on {story.data(results)}; {story.protocol(results)}.",
        *(f"Teachers {listed(keys)}: {network}." for network, keys in alike(results.study).items()),
        f"{_runs(entries)}, {CONVENTIONS[table.convention]}.",
    ]
    if any(e.n > 1 for row in table.rows if row.kind == "teacher" for e in row.entries.values()):
        told.append("Of several teachers: mean ± standard deviation over them.")
    if tested := [e for e in entries if e.p is not None]:
        direction = "" if measure.higher_is_better else ", lower is better"
        signs = explained((e.mark for e in tested), baseline)
        told.append(f"{signs} (paired t-test, Holm-corrected p < 0.05{direction}).")
    if any(e.best for e in entries):
        told.append("Bold: significantly better than every other method of its column.")
    return " ".join(told)


def _runs(entries: list[Entry]) -> str:
    """What an entry is of. In LaTeX those of the usual number of runs do not say it."""
    if all(e.n < 2 for e in entries):
        return "A single run" if any(e.n for e in entries) else "No run yet"
    whole = Counter(e.n for e in entries if e.n == e.expected).most_common(1)
    if not whole:
        return "Mean ± standard deviation over as many seeds as each entry says"
    (usual, _) = whole[0]
    others = "" if all(e.n in (0, usual) for e in entries) else " where an entry says no other number"
    return f"Mean ± standard deviation over {counted(usual, 'seed')}{others}"


def differences(table: Table) -> Section:
    def value(e: Entry) -> Value:
        spread = "" if e.difference_ci95 is None else number(e.difference_ci95, e.digits)
        tail = "" if e.p is None else f", {p_text(e.p)}"
        return Value(number(e.difference, e.digits, sign=True), spread, tail, e.mark or "", sort=e.difference)

    compared = [r for r in table.rows if r.kind != "teacher" and r.name != table.baseline] if table.baseline else []
    rows = [Line((_label(r), *(value(r.entries[c.pair]) for c in table.columns)), r.kind) for r in compared]
    entries = [row.entries[c.pair] for row in compared for c in table.columns]
    told = ["95 % interval"] if any(e.difference_ci95 is not None for e in entries) else []
    told += ["corrected p"] if any(e.p is not None for e in entries) else []
    title = f"Difference to {table.label(table.baseline)}" + (f" ({', '.join(told)})" if told else "")
    return Section("differences", title, _header(table), tuple(rows))


def _interval(value: float | None, interval: tuple[float, float] | None, digits: int) -> Value:
    tail = f" [{number(interval[0], digits)}, {number(interval[1], digits)}]" if interval and value is not None else ""
    return Value(number(value, digits), tail=tail, sort=value)


def aggregates(table: Table) -> Section:
    improvement = f"probability of improvement on {table.label(table.baseline)}"
    header = (Head("method", False), Head("interquartile mean"), Head(improvement))
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
    known = any(a.iqm_interval or a.improvement_interval for a in table.aggregates)
    title, note = ("Across pairs (95 % bootstrap interval)", ACROSS) if known else ("Across pairs", NO_INTERVAL)
    return Section("across", title, header, tuple(rows), notes=(note,), caption=f"Across pairs. {note}")
