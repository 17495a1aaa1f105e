"""The result tables as GitHub-flavoured Markdown."""

from __future__ import annotations

import re

from distillery.report.ledger import NOT_COMPARABLE
from distillery.report.table import Entry, Table
from distillery.report.text import (
    LEDGER_HEADER,
    MARKS,
    aggregate_header,
    aggregate_rows,
    classwise_header,
    classwise_row,
    classwise_text,
    count_text,
    difference_text,
    label_of,
    ledger_row,
    score_text,
    tally_text,
)

_ENTITY = re.compile(r"&#?\w+;")
_LIST = re.compile(r"^(\d*)([.)+-](?:\s|$))")


def markdown(table: Table) -> str:
    """GitHub-flavoured Markdown: the table, differences to the baseline, aggregates, notes, missing runs."""
    header = ["method"] + [f"{c.teacher} → {c.student}" for c in table.columns]

    def cell(entry: Entry) -> str:
        text = score_text(entry)
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
        lines += [
            "",
            "### Across pairs (95 % bootstrap interval)",
            "",
            *_grid([escape(text) for text in aggregate_header(table)], rows),
        ]
    return "\n".join([*lines, *_classwise(table), *_sections(table), *_against_published(table)]) + "\n"


def _classwise(table: Table) -> list[str]:
    if not any(e.sc is not None or e.tc is not None for e in table.classwise):
        return []
    rows = [[escape(label_of(table, e.method)), e.pair, *classwise_row(e)] for e in table.classwise]
    lines = ["", "### Class-wise effect", "", *_grid(["method", "pair", *classwise_header(table)], rows)]
    return [*lines, "", classwise_text(table)]


def _sections(table: Table) -> list[str]:
    """The task's own tables."""
    lines = []
    for section in table.sections:
        rows = [[escape(text) for text in row] for row in section.rows]
        lines += ["", f"### {escape(section.title)}", "", *_grid([escape(text) for text in section.header], rows)]
        lines += ["", escape(section.note)] if section.note else []
    return lines


def _against_published(table: Table) -> list[str]:
    if not table.published:
        return []
    lines = ["", "### Against published numbers", "", f"{tally_text(table)} All of them are in ledger.csv.", ""]
    rows = [[escape(text) for text in ledger_row(table, c)] for c in table.published if c.verdict != NOT_COMPARABLE]
    return lines + (_grid(list(LEDGER_HEADER), rows) if rows else [])


def _grid(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    return [_pipe(line, widths) for line in (header, rule, *rows)]


def _pipe(cells: list[str], widths: list[int]) -> str:
    padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join(padded) + " |"


def escape(text: str) -> str:
    """Escape plain text for Markdown, also where it begins a line: `1. `, `+ ` or `- ` would make a list."""
    text = "".join(
        "\\" + c if c in "\\|*_`<>[]~$#" or (c == "&" and _ENTITY.match(text, i)) else c for i, c in enumerate(text)
    )
    return _LIST.sub(r"\1\\\2", text)
