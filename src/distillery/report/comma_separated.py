"""CSV files: numbers of six significant digits, one line per cell, run, epoch or comparison."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distillery.report.table import Table

NUMBERS = (
    *("mean", "sd", "n", "expected", "ci95", "difference", "difference_ci95", "p", "mark", "best", "seeds_needed"),
)
FIELDS = (
    *("pair", "teacher", "student", "method", "label", "kind", "convention", *NUMBERS, "footnote", "seeds", "values"),
)
OURS = ("pair", "method", "convention", "mean", "sd", "n", "difference", "interval", "verdict", "reason")
THEIRS = ("value", "sd", "trials", "paper", "table", "source", "lineage", "kind", "report", "note")


def rows(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """A CSV file: the header, then one line per mapping; nothing for None, six significant digits for numbers."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in line.items()} for line in lines)
    return text.getvalue()


def cells(table: Table) -> str:
    """The main table, one line per cell; `seeds` and `values` hold one number per run."""
    lines = []
    for row in table.rows:
        for column in table.columns:
            entry = row.entries[column.pair]
            line: dict[str, Any] = {"pair": column.pair, "teacher": column.teacher, "student": column.student}
            line |= {"method": row.name, "label": row.label, "kind": row.kind, "convention": table.convention}
            line |= {name: getattr(entry, name) for name in NUMBERS} | {"footnote": row.footnote}
            lines.append(line | {"seeds": _listed(entry.seeds), "values": _listed(entry.values)})
    return rows(FIELDS, lines)


def ledger(table: Table) -> str:
    """All comparisons with published numbers, one line each, with the reason where there is no verdict."""
    lines = [
        {name: getattr(c, name) for name in OURS} | {f"published_{name}": getattr(c.published, name) for name in THEIRS}
        for c in table.published
    ]
    return rows([*OURS, *(f"published_{name}" for name in THEIRS)], lines)


def _listed(values: Iterable[object]) -> str:
    return " ".join(map(_plain, values))


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
