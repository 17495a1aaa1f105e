"""A verification as a section of the report.

It depends on what git or a colleague has, so it is never in `report.html`: `verify --page` writes a copy that has it
(see `report.dated`).
"""

from __future__ import annotations

from pathlib import Path

from distillery.pipeline.job import Plan
from distillery.records.io import atomic_path
from distillery.report import dated
from distillery.report.markdown import markdown
from distillery.report.sections.section import Head, Line, Section, Value, words
from distillery.report.text import number
from distillery.verify.compare import Compared, Verification
from distillery.verify.show import HEADER, notes, parting, verdict

DECIDES_RESULTS = False
NUMBERS = HEADER[2:5]


def section(found: Verification) -> Section:
    """The cells, the verdict in one sentence, and what a reader must know about the differences."""
    said = verdict(found)
    return Section(
        "verification",
        "Reproduction",
        tuple(Head(name, name in NUMBERS) for name in HEADER),
        tuple(Line(_row(cell, found.digits)) for cell in found.cells),
        lead=f"{said[0].upper()}{said[1:]}.",
        notes=tuple(notes(found)),
    )


def _row(cell: Compared, digits: int) -> tuple[Value, ...]:
    spread = number(cell.interval, digits) if cell.interval else ""
    return (
        *words(cell.label, cell.pair),
        *(Value(number(mean, digits), sort=mean) for mean in (cell.ours, cell.theirs)),
        Value(number(cell.difference, digits, sign=True), spread, sort=cell.difference),
        *words(cell.verdict, parting(cell)),
    )


def write(found: Verification, plan: Plan, to: Path) -> None:
    """Write a copy of the report with the verification as its first section; it alone, if `to` ends with .md.

    Raises DistilleryError if there is no report yet, or if `to` would replace it.
    """
    if to.suffix != ".md":
        return dated.write(plan, to, section(found))
    with atomic_path(to) as temporary:
        temporary.write_text(markdown([section(found)], {}), encoding="utf-8")
