"""The report on a terminal, from the written results."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from distillery.pipeline.layout import Layout
from distillery.records.io import DistilleryError, read_json
from distillery.report.ledger import NOT_COMPARABLE
from distillery.report.sections import comparison
from distillery.report.sections.published import published
from distillery.report.sections.section import MARKS, Head, Line, Section, Value
from distillery.report.table import Table
from distillery.study.model import Study

LONGEST = 24  # characters of words on one line


def written(study: Study) -> Table:
    """The table that the `tables` stage wrote, of this or of an earlier version; DistilleryError if there is none."""
    path = Layout(study.study).result_files()["table"]
    if not path.exists():
        raise DistilleryError(
            f"study {study.study!r} has no results yet ({path} is missing): run `snakemake --cores all`, if it is not "
            "in params.yaml with `--config study=NAME` for a ready-made study or `--config params=FILE`"
        )
    try:
        return Table.from_json(read_json(path)["table"])
    except (KeyError, TypeError, AttributeError):
        raise DistilleryError(f"{path} is damaged, or no table of Distillery: run the study again") from None


def show(study: Study, fault: str, console: Console | None = None) -> None:
    """Print the study's table, and above and below it what is out of date (`fault`, "" if nothing is).

    Raises DistilleryError if the `tables` stage has not written it yet.
    """
    console, found = console or Console(), written(study)
    _warn(console, fault)
    for section in (comparison.main(found), comparison.aggregates(found)):
        if section.rows:
            render(console, section)
    console.print(f"Figures and the provenance of every number: {Layout(study.study).result_files()['report']}")
    if not Layout(study.study).all_metrics.exists():
        told = "Nothing was trained here: the table was compared with the study and the code, not with its metrics."
        console.print(told, style="dim", highlight=False)
    _warn(console, fault)


def compare(study: Study, fault: str, everything: bool = False, console: Console | None = None) -> None:
    """Print the reproduction ledger: comparisons with published numbers; `everything`: what cannot be compared too."""
    console, found = console or Console(), written(study)
    _warn(console, fault)
    if not found.published:
        console.print(f"No published number belongs to a cell of study {study.study!r}.")
        return
    render(console, published(found), aside=everything)
    reasons = Counter(c.reason for c in found.published if c.verdict == NOT_COMPARABLE)
    for reason, count in reasons.most_common(5):
        _say(console, f"not comparable ({count}): {reason}")


def render(console: Console, section: Section, aside: bool = True) -> None:
    """Print a section, its columns in as many tables below each other as the width asks for."""
    rows = [line for line in section.rows if aside or line.kind != "aside"]
    title: str | None = section.title
    for columns in _blocks(section.header, rows, console.width):
        shown = RichTable(title=title, title_style="bold")
        for i in columns:
            justify: Literal["left", "right"] = "right" if section.header[i].number else "left"
            shown.add_column(Text(section.header[i].text), justify=justify, overflow="fold")
        for n, line in enumerate(rows):
            follows = rows[n + 1].kind if n + 1 < len(rows) else line.kind
            shown.add_row(
                *(_text(line.values[i], section.header[i]) for i in columns),
                style="dim" if line.kind == "teacher" else "",
                end_section=line.kind in ("teacher", "alone") and follows == "method",
            )
        if rows:
            console.print(shown)
        title = None
    if section.lead:
        console.print(section.lead, highlight=False, markup=False, emoji=False)
    for note in (*section.notes, *section.footnotes):
        _say(console, note)
    for text in section.warnings:
        console.print(text[0].lower() + text[1:], style="yellow", highlight=False, markup=False, emoji=False)


def _blocks(heads: tuple[Head, ...], rows: list[Line], width: int) -> list[list[int]]:
    """Columns that fit beside the first ones, which are words before any number; only long words are broken."""
    texts = [(*head.text.split("\n"), *(_text(r.values[i], head).plain for r in rows)) for i, head in enumerate(heads)]
    longest = [max(map(cell_len, column)) for column in texts]
    needed = [3 + (n if head.number else min(n, LONGEST)) for n, head in zip(longest, heads, strict=True)]
    keys = next((i for i, head in enumerate(heads) if head.number), 1)
    blocks: list[list[int]] = []
    room = 0
    for i in range(keys, len(heads)):
        if room < needed[i] or not blocks:
            blocks.append([*range(keys)])
            room = width - 1 - min(sum(needed[:keys]), width // 2)
        blocks[-1].append(i)
        room -= needed[i]
    return blocks


def _text(value: Value, head: Head) -> Text:
    text = Text(value.score, style="bold" if value.strong else "")
    text.append(value.tail, style="not bold")
    text.append(f" ({value.note})" if value.note else "")
    if head.number and value.cell:  # the main table: the difference, and a place for the mark, so that all line up
        text.append(f" {value.aside:>6} {MARKS.get(value.mark, ''):1}")
    elif value.mark:
        text.append(f" {MARKS[value.mark]}")
    return text


def _say(console: Console, note: str) -> None:
    console.print(note, style="dim", highlight=False, markup=False, emoji=False)


def _warn(console: Console, fault: str) -> None:
    if fault:
        console.print(f"out of date: {fault}", style="bold yellow", highlight=False, markup=False)
