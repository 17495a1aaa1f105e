"""The section that compares with published numbers."""

from __future__ import annotations

from typing import Any

from distillery.report import glossary
from distillery.report.ledger import AGREES, NOT_COMPARABLE, tally
from distillery.report.sections.section import Head, Line, Section, Value, words
from distillery.report.table import Table
from distillery.report.text import counted, number


def published_values(table: Table, c: Any) -> tuple[Value, ...]:
    """One comparison: ours, published, difference, verdict, epoch, reason, source."""
    digits, theirs = table.measure.digits, c.published
    return (
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
        Value(
            number(c.difference, digits, sign=True),
            "" if c.interval is None else number(c.interval, digits),
            sort=c.difference,
        ),
        *words(c.verdict, c.convention, c.reason),
        Value(f"{theirs.paper}, {theirs.table}", sort=theirs.paper, link=glossary.arxiv(theirs.paper)),
    )


PUBLISHED = (
    *(Head("ours"), Head("published"), Head("difference")),
    *(Head("verdict", False), Head("epoch", False), Head("reason", False), Head("source", False)),
)
DIFFERENCE = (
    "Difference: ours less the published number, ± half its 95 % interval: Welch's where a spread is published; "
    "elsewhere their number is taken as the mean of its runs (of one, if they do not say) that scatter like ours. "
    "Half a unit of the last digit is added. No verdict is corrected for how many numbers are compared."
)
AGREE = (
    "agrees: the difference lies within its interval. That is not equality: the interval says how large a difference "
    "would go unseen."
)


def published(table: Table) -> Section:
    rows = [
        Line(
            (*words(table.label(c.method), c.pair), *published_values(table, c)),
            "" if c.verdict != NOT_COMPARABLE else "aside",
        )
        for c in table.published
    ]
    if not rows:
        return Section("published", "Against published numbers")
    notes = [DIFFERENCE] if any(c.interval is not None for c in table.published) else []
    notes += [AGREE] if any(c.verdict == AGREES for c in table.published) else []
    return Section(
        "published",
        "Against published numbers",
        (Head("method", False), Head("pair", False), *PUBLISHED),
        tuple(rows),
        lead=tally_text(table),
        notes=tuple(notes),
        figures=("published",),
    )


def tally_text(table: Table) -> str:
    """The ledger in one or two sentences."""
    t = tally(list(table.published))
    tried = t["agrees"] + t["above"] + t["below"]
    return (
        f"{counted(len(table.published), 'published number')} for {counted(t['cells'], 'cell')}: {tried} comparable "
        f"(agree: {t['agrees']}, exceeded: {t['above']}, not reached: {t['below']}), "
        f"{t[NOT_COMPARABLE]} not comparable. "
        f"Cells that agree with every number: {t['cells agreeing']} of {t['cells compared']} compared."
    )
