"""The main table as Markdown and CSV. The same results give the same bytes."""

from __future__ import annotations

import csv
import io

from distillery.reporting.table import Aggregate, Entry, Table

MISSING = "—"
MARKS = {"better": " ▲", "worse": " ▼", None: ""}


def count_text(entry: Entry) -> str:
    """The number of runs, with the number there should be if some are missing."""
    return f"({entry.n})" if entry.n == entry.expected else f"({entry.n} of {entry.expected})"


def accuracy_text(entry: Entry, plus_minus: str = " ± ") -> str:
    """`mean ± sd`; the mean alone for a single run; a dash without any."""
    if entry.mean is None:
        return MISSING
    return f"{entry.mean:.2f}" + ("" if entry.sd is None else f"{plus_minus}{entry.sd:.2f}")


def difference_text(entry: Entry) -> str:
    """Difference to the baseline with its 95 % interval and the corrected p value, as far as they are known."""
    if entry.difference is None:
        return MISSING
    interval = "" if entry.difference_ci95 is None else f" ± {entry.difference_ci95:.2f}"
    return f"{entry.difference:+.2f}{interval}" + ("" if entry.p is None else f", p = {p_text(entry.p)}")


def p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def interval_text(value: float | None, interval: tuple[float, float] | None, digits: int) -> str:
    """A value with its interval in brackets, as far as they are known."""
    if value is None:
        return MISSING
    return f"{value:.{digits}f}" + (f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else "")


def aggregate_rows(table: Table) -> list[list[str]]:
    """Lines of the table across pairs, after the header `aggregate_header`."""

    def row(a: Aggregate) -> list[str]:
        return [
            a.label,
            interval_text(a.iqm, a.iqm_interval, 2),
            interval_text(a.improvement, a.improvement_interval, 2),
        ]

    return [row(a) for a in table.aggregates]


def aggregate_header(table: Table) -> list[str]:
    return ["method", "interquartile mean", f"probability of improvement on {label_of(table, table.baseline)}"]


def label_of(table: Table, method: str | None) -> str:
    return next((row.label for row in table.rows if row.name == method), method or "a baseline")


def markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: the table, differences to the baseline, aggregates, notes, missing runs."""
    header = ["method"] + [f"{c.teacher} → {c.student}" for c in table.columns]

    def cell(entry: Entry) -> str:
        text = accuracy_text(entry)
        return f"{f'**{text}**' if entry.best else text} {count_text(entry)}{MARKS[entry.mark]}"

    rows = []
    for row in table.rows:
        note = f"<sup>{row.footnote}</sup>" if row.footnote else ""
        rows.append([escape(row.label) + note] + [cell(row.entries[c.pair]) for c in table.columns])
    lines = [f"## {table.title}", "", *_grid(header, rows)]
    lines += ["", *(f"- {escape(note)}" for note in table.notes), *(f"- {escape(note)}" for note in table.footnotes)]
    if table.missing:
        lines += ["", "Missing runs:", "", *(f"- {escape(line)}" for line in table.missing)]
    compared = [row for row in table.rows if row.kind != "teacher" and row.name != table.baseline]
    if table.baseline and compared:
        title = f"### Difference to {escape(label_of(table, table.baseline))} (95 % interval, corrected p)"
        rows = [[escape(r.label), *(difference_text(r.entries[c.pair]) for c in table.columns)] for r in compared]
        lines += ["", title, "", *_grid(header, rows)]
    if table.aggregates:
        rows = [[escape(text) for text in row] for row in aggregate_rows(table)]
        lines += ["", "### Across pairs (95 % bootstrap interval)", "", *_grid(aggregate_header(table), rows)]
    return "\n".join(lines) + "\n"


def _grid(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    return [_pipe(line, widths) for line in (header, rule, *rows)]


def _pipe(cells: list[str], widths: list[int]) -> str:
    padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join(padded) + " |"


def escape(text: str) -> str:
    """Escape plain text for Markdown."""
    return "".join("\\" + c if c in "\\|*_`<>[]" else c for c in text)


NUMBERS = (
    *("mean", "sd", "n", "expected", "ci95", "difference", "difference_ci95", "p", "mark", "best", "seeds_needed"),
)
FIELDS = (
    *("pair", "teacher", "student", "method", "label", "kind", "convention", *NUMBERS, "footnote", "seeds", "values"),
)


def comma_separated(table: Table) -> str:
    """One line per cell with the unrounded numbers; `seeds` and `values` hold one number per run."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        for column in table.columns:
            entry = row.entries[column.pair]
            line = {"pair": column.pair, "teacher": column.teacher, "student": column.student}
            line |= {"method": row.name, "label": row.label, "kind": row.kind, "convention": table.convention}
            line |= {name: _plain(getattr(entry, name)) for name in NUMBERS} | {"footnote": row.footnote}
            line |= {"seeds": " ".join(map(str, entry.seeds)), "values": " ".join(map(_plain, entry.values))}
            writer.writerow(line)
    return text.getvalue()


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
