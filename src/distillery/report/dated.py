"""A copy of the report that says what the report itself may not depend on: when it was made, and what others found.

The stage `tables` is a function of the study's measurements: the same measurements give the same bytes, on any day and
at any commit. Dates and revisions lie in notes beside the records, and come into a copy when somebody asks for one.
"""

from __future__ import annotations

from pathlib import Path

from distillery.errors import DistilleryError
from distillery.pipeline.job import Plan
from distillery.records.io import atomic_path, read_json
from distillery.report.page import amended
from distillery.report.sections.section import Section
from distillery.report.text import listed

DECIDES_RESULTS = False


def made(plan: Plan) -> str:
    """When, and by which revision, the students were trained, as far as the notes are here; "" if none is."""
    notes = [read_json(job.provenance) for job in plan if job.stage == "distill" and job.provenance.exists()]
    days = sorted({str(note["began"])[:10] for note in notes})
    revisions = list(dict.fromkeys(_short(str(note["revision"])) for note in notes))
    if not days:
        return ""
    return f"{days[0] if len(days) == 1 else f'{days[0]} to {days[-1]}'}, revision {listed(revisions, 3)}"


def _short(revision: str) -> str:
    commit, dirty, rest = revision.partition("-")
    return (commit[:12] if len(commit) == 40 else commit) + dirty + rest


def write(plan: Plan, to: Path, added: Section | None = None) -> None:
    """Write a copy of the study's report with the date, and with one more section.

    Raises DistilleryError if there is no report yet, or if `to` would replace it.
    """
    report = plan.layout.result_files()["report"]
    if not report.exists():
        raise DistilleryError(f"{report} is missing: run `snakemake --cores all` or `dvc repro`")
    if to.exists() and to.samefile(report):
        raise DistilleryError(f"--page {to}: this is the report of the study, which stays as it was made: name another")
    facts = [("Trained", text)] if (text := made(plan)) else []
    page = amended(report.read_text(encoding="utf-8"), facts, added)
    with atomic_path(to) as temporary:
        temporary.write_text(page, encoding="utf-8")
