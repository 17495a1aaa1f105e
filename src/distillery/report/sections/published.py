"""The section that compares with published numbers."""

from __future__ import annotations

from typing import Any

from distillery.report import glossary
from distillery.report.ledger import NOT_COMPARABLE, tally
from distillery.report.results import Results
from distillery.report.sections.section import Head, Line, Section, Value, words
from distillery.report.table import Table
from distillery.report.text import number


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


def published(results: Results, table: Table) -> Section:
    rows = [
        Line(
            (*words(table.label(c.method), c.pair), *published_values(table, c)),
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
