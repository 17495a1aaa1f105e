"""The report, free of any format: a list of sections, each with a table, notes and the names of its figures.

`sections` is the one place that says what is reported. The renderers (terminal, markdown, latex, page) are functions of
what it returns, and `table.json` keeps it, so that a clone can show it without the measurements.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from distillery.report import glossary, measures, story
from distillery.report.budget import called, said
from distillery.report.ledger import NOT_COMPARABLE, tally
from distillery.report.recipes import precision_of
from distillery.report.results import Results
from distillery.report.table import CONVENTIONS, Entry, Row, Table
from distillery.report.text import MINUS, MISSING, count_text, decimals, number, p_text

MARKS = {"better": "▲", "worse": "▼"}


@dataclass(frozen=True)
class Value:
    """One entry of a row: a number as it is printed, or words.

    Attributes:
        text: the number, or the words.
        spread: what follows a plus-minus sign.
        tail: what follows in small print: the number of runs, a p value, an interval.
        mark: "better" or "worse" than the baseline.
        strong: set in bold.
        sort: what a table is sorted by.
        aside: the difference to the baseline, where there is no other place for it (on a terminal).
        cell: whose provenance a click shows.
        link: addresses, separated by spaces.
        note: signs after a label, which refer to the notes.
    """

    text: str
    spread: str = ""
    tail: str = ""
    mark: str = ""
    strong: bool = False
    sort: float | str | None = None
    aside: str = ""
    cell: str = ""
    link: str = ""
    note: str = ""

    @property
    def score(self) -> str:
        return f"{self.text} ± {self.spread}" if self.spread else self.text

    @property
    def plain(self) -> str:
        """All of it but note and aside, as text."""
        return f"{self.score}{self.tail}" + (f" {MARKS[self.mark]}" if self.mark else "")


@dataclass(frozen=True)
class Head:
    """A column: its title (of two lines for a pair), and whether it holds numbers."""

    text: str
    number: bool = True


@dataclass(frozen=True)
class Line:
    """A row. `kind`: "teacher", "alone", "method", or "" where it makes no difference."""

    values: tuple[Value, ...]
    kind: str = ""


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        name: its key, and its anchor on the page.
        lead: a sentence before the table.
        notes: below the table.
        footnotes: what the signs after labels refer to.
        warnings: what is missing.
        figures: names of the figures that belong to it.
        caption: what a paper's caption says, for a table that a paper takes (LaTeX).
    """

    name: str
    title: str
    header: tuple[Head, ...] = ()
    rows: tuple[Line, ...] = ()
    lead: str = ""
    notes: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    caption: str = ""

    def to_json(self) -> dict[str, Any]:
        """Without what is at its default: a large study has thousands of values."""
        rows = [{"kind": line.kind, "values": [_brief(value) for value in line.values]} for line in self.rows]
        return asdict(self) | {"rows": rows}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Section:
        rows = [Line(tuple(Value(**v) for v in line["values"]), line["kind"]) for line in content["rows"]]
        lists = {name: tuple(content[name]) for name in ("notes", "footnotes", "warnings", "figures")}
        return cls(**content | lists | {"rows": tuple(rows), "header": tuple(Head(**h) for h in content["header"])})


def _brief(value: Value) -> dict[str, Any]:
    return {f.name: v for f in fields(value) if (v := getattr(value, f.name)) != f.default}


def sections(results: Results, table: Table, drawn: Collection[str] = ()) -> list[Section]:
    """Everything that is reported about a study, in the order of reading; what it has nothing to show in is left out.

    `drawn`: the figures that there are.
    """
    found = [
        _trained(results, table),
        _main(results, table),
        _differences(table),
        _aggregates(table),
        _published(results, table),
        Section("curves", "Learning curves", figures=("curves",)),
        Section("cost", "Cost and temperature", figures=("cost", "temperature")),
        _measures(results, table),
        _classwise(table),
        *_of_task(results),
        _methods(results, table),
    ]
    named = {name for section in found for name in section.figures}
    found.append(Section("figures", "More figures", figures=tuple(name for name in drawn if name not in named)))
    found = [replace(s, figures=tuple(name for name in s.figures if name in drawn)) for s in found]
    return [section for section in found if section.rows or section.figures]


def _trained(results: Results, table: Table) -> Section:
    rows = [Line((Value(subject), Value(text))) for subject, text in story.trained(results, table)]
    return Section("trained", "What was trained", (Head("", False), Head("", False)), tuple(rows))


def _header(table: Table) -> tuple[Head, ...]:
    return (Head("method", False), *(Head(f"{c.teacher}\n→ {c.student}") for c in table.columns))


def _label(row: Row) -> Value:
    return Value(row.label, sort=row.label, note=row.footnote)


def _main(results: Results, table: Table) -> Section:
    def value(row: Row, pair: str) -> Value:
        e = row.entries[pair]
        return Value(
            number(e.mean, e.digits),
            "" if e.sd is None else number(e.sd, e.digits),
            f" {count_text(e)}",
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
        caption=_caption(results, table),
    )


def _caption(results: Results, table: Table) -> str:
    """Of the main table in a paper: what was measured, on what, how it was trained, and what the signs mean."""
    measure, baseline = table.measure, table.label(table.baseline)
    ns = sorted({e.n for row in table.rows if row.kind != "teacher" for e in row.entries.values()})
    seeds = f"{ns[0]}" if len(ns) == 1 else f"{ns[0]} to {ns[-1]}"
    signs = f" Arrows: significantly better or worse than {baseline} (paired t-test, Holm-corrected p < 0.05)."
    title = f"{measure.title[0].upper()}{measure.title[1:]}"
    return (
        f"{title} on {story.data(results)}; {story.protocol(results)}. Mean ± standard deviation over {seeds} seeds, "
        f"{CONVENTIONS[table.convention]}.{signs if table.baseline else ''} Bold: better than every other method."
    )


def _differences(table: Table) -> Section:
    def value(e: Entry) -> Value:
        spread = "" if e.difference_ci95 is None else number(e.difference_ci95, e.digits)
        tail = "" if e.p is None else f", p = {p_text(e.p)}"
        return Value(number(e.difference, e.digits, sign=True), spread, tail, e.mark or "", sort=e.difference)

    compared = [r for r in table.rows if r.kind != "teacher" and r.name != table.baseline] if table.baseline else []
    rows = [Line((_label(r), *(value(r.entries[c.pair]) for c in table.columns)), r.kind) for r in compared]
    title = f"Difference to {table.label(table.baseline)} (95 % interval, corrected p)"
    return Section("differences", title, _header(table), tuple(rows))


def _interval(value: float | None, interval: tuple[float, float] | None, digits: int) -> Value:
    tail = f" [{number(interval[0], digits)}, {number(interval[1], digits)}]" if interval and value is not None else ""
    return Value(number(value, digits), tail=tail, sort=value)


def _aggregates(table: Table) -> Section:
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
    return Section("across", f"{title} (95 % bootstrap interval)", header, tuple(rows), caption=title)


def _words(*texts: str) -> tuple[Value, ...]:
    return tuple(Value(text, sort=text) for text in texts)


def _measures(results: Results, table: Table) -> Section:
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
        rows.append(Line((*_words(table.label(cell.method), cell.pair), *values)))
    names = [column.name.replace("_", " ") for column in columns]
    return Section(
        "measures",
        "Other measures of the last epoch",
        (Head("method", False), Head("pair", False), *map(Head, names)),
        tuple(rows),
        notes=(
            "Mean ± standard deviation over runs.",
            *(f"{short}: {column.label}." for short, column in zip(names, columns, strict=True)),
        ),
        figures=("reliability", "logits"),
    )


def _classwise(table: Table) -> Section:
    """Against a single teacher the count is not the published #TC, nor called so."""
    against = {"#TC" if e.teachers > 1 else "against this one teacher" for e in table.classwise}
    counts = [f"{name} (after Holm)" for name in ("#SC", " or ".join(sorted(against)))]
    names = [*counts, "differs from student alone, %", "differs from teacher, %"]

    def values(e: Any) -> Iterable[Value]:
        for n, holm in ((e.sc, e.sc_holm), (e.tc, e.tc_holm)):
            yield Value(MISSING if n is None else str(n), tail="" if n is None else f" ({holm})", sort=n)
        for rate in (e.alone_disagreement, e.teacher_disagreement):
            yield Value(number(rate, 1), sort=rate)

    rows = [Line((*_words(table.label(e.method), e.pair), *values(e))) for e in table.classwise]
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


def published_values(table: Table, c: Any) -> tuple[Value, ...]:
    """One comparison: epoch, ours, published, difference, verdict, source."""
    digits, theirs = table.measure.digits, c.published
    return (
        Value(c.convention, sort=c.convention),
        Value(
            number(c.mean, digits),
            "" if c.sd is None else number(c.sd, digits),
            "" if c.mean is None else f" ({c.n})",
            sort=c.mean,
        ),
        Value(
            number(theirs.value, digits),
            "" if theirs.sd is None else number(theirs.sd, digits),
            "" if theirs.trials is None else f" ({theirs.trials})",
            sort=theirs.value,
        ),
        Value(number(c.difference, digits, sign=True), sort=c.difference),
        Value(f"{c.verdict}: {c.reason}" if c.reason else c.verdict, sort=c.verdict),
        Value(f"{theirs.paper}, {theirs.table}", sort=theirs.paper, link=glossary.arxiv(theirs.paper)),
    )


PUBLISHED = (
    *(Head("epoch", False), Head("ours"), Head("published"), Head("difference")),
    *(Head("verdict", False), Head("source", False)),
)


def _published(results: Results, table: Table) -> Section:
    rows = [
        Line(
            (*_words(table.label(c.method), c.pair), *published_values(table, c)),
            "" if c.verdict != NOT_COMPARABLE else "aside",
        )
        for c in table.published
    ]
    header = (Head("method", False), Head("pair", False), *PUBLISHED)
    lead = tally_text(table) if rows else ""
    return Section(
        "published", "Against published numbers", header, tuple(rows), lead=lead, figures=("published",) if rows else ()
    )


def tally_text(table: Table) -> str:
    """The ledger in one or two sentences."""
    t = tally(list(table.published))
    tried = t["agrees"] + t["above"] + t["below"]
    return (
        f"{len(table.published)} published numbers for {t['cells']} cells: {tried} comparable, "
        f"of which {t['agrees']} agree, {t['above']} are exceeded and {t['below']} not reached; "
        f"{t[NOT_COMPARABLE]} not comparable. "
        f"{t['cells agreeing']} of {t['cells compared']} compared cells agree with every number."
    )


def _of_task(results: Results) -> list[Section]:
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


def _methods(results: Results, table: Table) -> Section:
    """The glossary: what each method is, where its formula comes from, and with what it was trained."""
    rows = []
    for row in (r for r in table.rows if r.kind != "teacher"):
        method = results.study.methods[row.name]
        facts = [cell.facts for cell in results if cell.method == row.name and cell.facts]
        budgets = sorted({f"{f['recipe']['epochs']} epochs, {f['cost']['images_seen']:,} samples" for f in facts})
        precisions = sorted({precision_of(f["recipe"]) for f in facts})
        settings = [f"{called(k)} {said(v)}" for k, v in method.hyper.items()]
        words = [glossary.basis(method) or MISSING, "; ".join(precisions) or MISSING, "; ".join(budgets) or MISSING]
        known = glossary.parts(method)
        about = "; with ".join(part.about for part in known)
        links = " ".join(dict.fromkeys(part.link for part in known if part.link))
        settled = _words(*words, ", ".join(settings) or "its defaults")
        rows.append(Line((_label(row), Value(about, sort=about, link=links), *settled)))
    notes = (
        "reproduced: the authors' formula, compared number by number with their released code, or a textbook formula.",
        *(f"{name}: {meaning}." for name, meaning in glossary.MEANINGS.items()),
    )
    names = ("method", "what it is", "formula", "precision", "budget of one run", "settings")
    return Section("methods", "The methods", tuple(Head(n, False) for n in names), tuple(rows), notes=notes)
