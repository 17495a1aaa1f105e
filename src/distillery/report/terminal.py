"""The main table on a terminal, from the written results."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from distillery.pipeline.layout import Layout
from distillery.records.io import DistilleryError, read_json
from distillery.report.ledger import NOT_COMPARABLE
from distillery.report.table import Entry, Table
from distillery.report.text import (
    LEDGER_HEADER,
    MARKS,
    aggregate_header,
    aggregate_rows,
    count_text,
    ledger_row,
    score_text,
    tally_text,
)
from distillery.study.model import Study


def _written(study: Study) -> Table:
    """The study's table as the `tables` stage wrote it, of whatever version; DistilleryError if it has not."""
    path = Layout(study.study).result_files()["table"]
    if not path.exists():
        raise DistilleryError(
            f"study {study.study!r} has no results yet ({path} is missing): run `snakemake --cores all` or `dvc repro`"
        )
    try:
        return Table.from_json(read_json(path)["table"])
    except (KeyError, TypeError):
        raise DistilleryError(f"{path} is no table of this version of Distillery: run the study again") from None


def show(study: Study, fault: str, console: Console | None = None) -> None:
    """Print the study's table, and above and below it what is out of date (`fault`, "" if nothing is).

    Raises DistilleryError if the `tables` stage has not written it yet.
    """
    console, table = console or Console(), _written(study)
    _warn(console, fault)
    console.print(_rich(table))
    if table.aggregates:
        across = RichTable(title="across pairs (95 % bootstrap interval)", title_style="bold")
        for text in aggregate_header(table):
            across.add_column(Text(text))
        for texts in aggregate_rows(table):
            across.add_row(*map(Text, texts))
        console.print(across)
    for note in (*table.notes, *table.footnotes):
        console.print(note, style="dim", highlight=False, markup=False, emoji=False)
    for line in table.missing:
        console.print(f"missing: {line}", style="yellow", highlight=False, markup=False, emoji=False)
    console.print(f"Figures and the provenance of every number: {Layout(study.study).result_files()['report']}")
    if not Layout(study.study).all_metrics.exists():
        told = "Nothing was trained here: the table was compared with params.yaml and the code, not with its metrics."
        console.print(told, style="dim", highlight=False)
    _warn(console, fault)


def _warn(console: Console, fault: str) -> None:
    if fault:
        console.print(f"out of date: {fault}", style="bold yellow", highlight=False, markup=False)


def compare(study: Study, fault: str, everything: bool = False, console: Console | None = None) -> None:
    """Print the reproduction ledger: comparisons with published numbers; `everything`: what cannot be compared too."""
    console, table = console or Console(), _written(study)
    _warn(console, fault)
    if not table.published:
        console.print(f"No published number belongs to a cell of study {table.study!r}.")
        return
    rows = [c for c in table.published if everything or c.verdict != NOT_COMPARABLE]
    if rows:
        shown = RichTable(*LEDGER_HEADER, title=f"{table.study}: against published numbers", title_style="bold")
        for c in rows:
            shown.add_row(*map(Text, ledger_row(table, c)))
        console.print(shown)
    console.print(tally_text(table), highlight=False)
    for reason, count in Counter(c.reason for c in table.published if c.verdict == NOT_COMPARABLE).most_common(5):
        console.print(f"not comparable ({count}): {reason}", style="dim", highlight=False, markup=False, emoji=False)


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_style="bold", caption_style="dim")
    shown.add_column("method")
    for column in table.columns:
        shown.add_column(f"{column.teacher}\n→ {column.student}", justify="right")
    for i, row in enumerate(table.rows):
        follows = table.rows[i + 1].kind if i + 1 < len(table.rows) else row.kind
        style = "dim" if row.kind == "teacher" else ""
        cells = [_entry(row.entries[c.pair]) for c in table.columns]
        label = f"{row.label} ({row.footnote})" if row.footnote else row.label
        shown.add_row(Text(label), *cells, style=style, end_section=row.kind != "method" and follows == "method")
    return shown


def _entry(entry: Entry) -> str:
    difference = "" if entry.difference is None else f"{entry.difference:+.{entry.digits}f}"
    text = f"[bold]{score_text(entry)}[/]" if entry.best else score_text(entry)
    return f"{text} {count_text(entry)} {difference:>6}{MARKS[entry.mark]:2}"
