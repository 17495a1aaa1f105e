"""The result tables and the ledger as CSV: unrounded numbers, one line per cell or comparison."""

from __future__ import annotations

import csv
import io

from distillery.reporting.table import Table

NUMBERS = (
    *("mean", "sd", "n", "expected", "ci95", "difference", "difference_ci95", "p", "mark", "best", "seeds_needed"),
)
FIELDS = (
    *("pair", "teacher", "student", "method", "label", "kind", "convention", *NUMBERS, "footnote", "seeds", "values"),
)


def cells(table: Table) -> str:
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


def ledger(table: Table) -> str:
    """All comparisons with published numbers, one line each, with the reason where there is no verdict."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("paper", "table", "source", "lineage", "kind", "report", "value", "sd", "trials", "note")
    ours = ("pair", "method", "convention", "mean", "sd", "n", "difference", "verdict", "reason")
    writer.writerow([*ours, *(f"published_{n}" if n in ("value", "sd", "trials") else n for n in names)])
    for c in table.published:
        writer.writerow([*(_plain(getattr(c, n)) for n in ours), *(_plain(getattr(c.published, n)) for n in names)])
    return text.getvalue()


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
