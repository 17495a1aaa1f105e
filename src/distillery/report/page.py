"""The report: one self-contained HTML page (no network), with the provenance of every number on click."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from distillery.report import measures
from distillery.report.classwise import ClassEffect
from distillery.report.figures import FIGURES
from distillery.report.pipeline import picture
from distillery.report.provenance import cells, plain
from distillery.report.results import Results
from distillery.report.table import Column, Entry, Row, Table
from distillery.report.text import (
    LEDGER_HEADER,
    MARKS,
    MISSING,
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
from distillery.task import Section

TEMPLATE = Path(__file__).with_name("page.html")
Cell = tuple[str, Any]  # HTML, and what to sort by ("" for nothing)


def page(results: Results, table: Table, record: dict[str, Any], figures: Path, drawn: list[str]) -> str:
    """Assemble the page from the table, the figures drawn in `figures` and the record of the `tables` stage."""
    runs = sum(len(cell.runs) for cell in results)
    counts = [(len(results.study.pairs), "pair"), (len(results.study.methods), "method"), (runs, "run")]
    lead = ", ".join(f"{n} {word}{'s' if n != 1 else ''}" for n, word in counts)
    sections = [
        ("Results", _main(table) + _notes(table)),
        (f"Difference to {label_of(table, table.baseline)} (95 % interval, corrected p)", _differences(table)),
        ("Across pairs (95 % bootstrap interval)", _aggregates(table)),
        ("Calibration, fidelity to the teacher, logits (last epoch)", _measures(results, table)),
        ("Class-wise effect of distillation", _classwise(table)),
        *((section.title, _section(section)) for section in table.sections),
        ("Figures", _figures(results, figures, drawn)),
        ("Against published numbers", _ledger(table)),
        ("Environment", _environment(record)),
    ]
    body = "\n".join(f"<h2>{escape(title)}</h2>\n{content}" for title, content in sections if content)
    data = json.dumps(cells(results, table, record), sort_keys=True, ensure_ascii=False).replace("<", "\\u003c")
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    title = escape(table.title)
    return template.substitute(title=title, lead=escape(lead), pipeline=picture(results), body=body, data=data)


def grid(header: list[str], rows: list[tuple[str, list[Cell]]], text_columns: tuple[int, ...] = ()) -> str:
    """A sortable table; every row is its class and its cells."""

    def kind(i: int) -> str:
        return ' class="text"' if i in text_columns else ""

    heads = "".join(f'<th scope="col"{kind(i)}><button>{escape(h)}</button></th>' for i, h in enumerate(header))
    lines = []
    for name, line in rows:
        cells_ = "".join(
            f'<td{kind(i)} data-value="{escape(str(value))}">{html}</td>' for i, (html, value) in enumerate(line)
        )
        lines.append(f'<tr class="{name}">{cells_}</tr>')
    body = "\n".join(lines)
    inner = f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="wide"><table class="sortable">\n{inner}</table></div>\n'


def _header(table: Table) -> list[str]:
    return ["method", *(f"{c.teacher}\n→ {c.student}" for c in table.columns)]


def _label(row: Row) -> Cell:
    note = f"<sup>{row.footnote}</sup>" if row.footnote else ""
    return escape(row.label) + note, row.label


def _main(table: Table) -> str:
    def cell(row: Row, column: Column) -> Cell:
        entry = row.entries[column.pair]
        text = escape(score_text(entry))
        text = f"<b>{text}</b>" if entry.best else text
        mark = f'<span class="{entry.mark}">{MARKS[entry.mark]}</span>' if entry.mark else ""
        html = f"{text} {escape(count_text(entry))}{mark}"
        return f'<button data-cell="{escape(f"{column.pair} {row.name}")}">{html}</button>', _sortable(entry.mean)

    return grid(_header(table), [(r.kind, [_label(r), *(cell(r, c) for c in table.columns)]) for r in table.rows])


def _sortable(value: float | None) -> str:
    return "" if value is None else repr(value)


def _notes(table: Table) -> str:
    notes = [
        *table.notes,
        *table.footnotes,
        "Click a cell for its runs, its published counterparts and where it comes from.",
    ]
    missing = [f"Missing: {line}" for line in table.missing]
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    items += "".join(f'<li class="warning">{escape(line)}</li>' for line in missing)
    return f'<ul class="notes">{items}</ul>'


def _differences(table: Table) -> str:
    rows = [row for row in table.rows if any(e.difference is not None for e in row.entries.values())]

    def cell(entry: Entry) -> Cell:
        mark = f'<span class="{entry.mark}">{MARKS[entry.mark]}</span>' if entry.mark else ""
        return escape(difference_text(entry)) + mark, _sortable(entry.difference)

    lines = [(row.kind, [_label(row), *(cell(row.entries[c.pair]) for c in table.columns)]) for row in rows]
    return grid(_header(table), lines) if rows else ""


def _aggregates(table: Table) -> str:
    lines = [
        (
            "",
            [
                (escape(text), value)
                for text, value in zip(texts, (a.label, a.iqm, _sortable(a.improvement)), strict=True)
            ],
        )
        for texts, a in zip(aggregate_rows(table), table.aggregates, strict=True)
    ]
    return grid(aggregate_header(table), lines) if lines else ""


def _measures(results: Results, table: Table) -> str:
    rows, columns = [], measures.shown(results.task)
    for cell in (c for c in results if c.runs):
        line: list[Cell] = [(escape(text), text) for text in (label_of(table, cell.method), cell.pair)]
        for column in columns:
            s = measures.of_cell(cell, column)
            text = MISSING if s.mean is None else f"{s.mean:.3g}" + ("" if s.sd is None else f" ± {s.sd:.2g}")
            line.append((text, _sortable(s.mean)))
        rows.append(("", line))
    names = [column.name.replace("_", " ") for column in columns]
    legend = "; ".join(f"{short}: {column.label}" for short, column in zip(names, columns, strict=True))
    table_ = grid(["method", "pair", *names], rows, text_columns=(1,))
    return f'{table_}<p class="small">Mean ± standard deviation over runs. {escape(legend)}.</p>' if rows else ""


def _classwise(table: Table) -> str:
    def line(e: ClassEffect) -> list[Cell]:
        texts = [label_of(table, e.method), e.pair, *classwise_row(e)]
        numbers = (e.sc, e.tc, e.alone_disagreement, e.teacher_disagreement)
        values = [*texts[:2], *("" if n is None else repr(n) for n in numbers)]
        return [(escape(text), value) for text, value in zip(texts, values, strict=True)]

    if not table.classwise:
        return ""
    header = ["method", "pair", *classwise_header(table)]
    table_ = grid(header, [("", line(e)) for e in table.classwise], text_columns=(1,))
    return f'{table_}<p class="small">{escape(classwise_text(table))}</p>'


def _section(section: Section) -> str:
    """One of the task's own tables."""
    rows = [("", [(escape(text), text) for text in row]) for row in section.rows]
    return grid(list(section.header), rows) + f'<p class="small">{escape(section.note)}</p>'


def _ledger(table: Table) -> str:
    if not table.published:
        return ""
    rows = []
    for c in table.published:
        values = [label_of(table, c.method), c.pair, c.convention, _sortable(c.mean), _sortable(c.published.value)]
        values += [_sortable(c.difference), c.verdict, c.published.paper]
        rows.append(("", [(escape(text), value) for text, value in zip(ledger_row(table, c), values, strict=True)]))
    return f"<p>{escape(tally_text(table))}</p>" + grid(list(LEDGER_HEADER), rows, text_columns=(1, 2, 6, 7))


def _figures(results: Results, folder: Path, drawn: list[str]) -> str:
    wide = " wide-figures" if len(results.study.pairs) > 1 else ""
    return f'<div class="figures{wide}">{"".join(_figure(name, folder) for name in drawn)}</div>' if drawn else ""


def _figure(name: str, folder: Path) -> str:
    """A figure as an image inside the page, so that the identifiers of several SVGs cannot meet."""
    encoded = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
    caption = escape(FIGURES[name][0])
    image = f'<img src="data:image/svg+xml;base64,{encoded}" alt="{caption}">'
    return f'<figure id="figure-{name}">{image}<figcaption>{caption}</figcaption></figure>\n'


def _environment(record: dict[str, Any]) -> str:
    made = {"tables made on": record["environment"], "code": record["spec"]["code"], "spec": record["spec_sha256"]}
    return f"<pre>{escape(plain(made))}</pre>"
