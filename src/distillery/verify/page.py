"""A verification as a section of the report.

The stage `tables` is a function of the study's measurements alone, and its page must not depend on what git or a
colleague has. So the section is never in `report.html`: `verify --page` writes a copy of the page that has it.
"""

from __future__ import annotations

from pathlib import Path

from distillery.errors import DistilleryError
from distillery.records.io import atomic_path
from distillery.report.markdown import markdown
from distillery.report.page import with_section
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


def write(found: Verification, report: Path, to: Path) -> None:
    """Write the report with the verification as its first section (`to` ends with .html), or the section (.md).

    Raises DistilleryError if `to` is something else, or would replace the report.
    """
    if to.suffix not in (".html", ".md"):
        raise DistilleryError(f"--page {to}: name a file that ends with .html (the whole report) or .md (the section)")
    if to.exists() and report.exists() and to.samefile(report):
        raise DistilleryError(f"--page {to}: this is the report of the study, which stays as it was made: name another")
    if to.suffix == ".md":
        text = markdown([section(found)], {})
    elif report.exists():
        text = with_section(report.read_text(encoding="utf-8"), section(found))
    else:
        raise DistilleryError(f"{report} is missing: run `snakemake --cores all`, or name a file that ends with .md")
    with atomic_path(to) as temporary:
        temporary.write_text(text, encoding="utf-8")
