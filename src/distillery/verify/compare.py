"""Cell by cell: the same bits, the same within the interval, or different; and where two copies of a study part.

Declared design. Two trainings with one seed on two kinds of machine part in the last bits and end as two draws from one
distribution. So cells are compared as methods are in a table: paired by seed, by a two-sided t test, corrected for all
tested cells (Holm). "Within the interval" says that no difference was found; the interval says how small a difference
would have been. What cannot be tested reproduces nothing: fewer than three common seeds, or differences that are all
equal (see `statistics.paired`), unless they are all zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from distillery.evaluation.statistics import ALPHA, FLAT, SMALLEST, holm, paired
from distillery.pipeline.current import difference
from distillery.pipeline.job import Job, Plan
from distillery.verify.record import Recorded

DECIDES_RESULTS = False
SAME, WITHIN, UNTESTED, DIFFERENT, MISSING = (
    "same bits",
    "within the interval",
    "cannot be tested",
    "different",
    "missing",
)
_LINES = ("pair",)  # stages whose outputs only name those of others


@dataclass(frozen=True)
class Compared:
    """One cell of both tables.

    Attributes:
        ours, theirs: the means, in the measure's unit; None where there is none.
        difference, interval: ours minus theirs over the common seeds, and half the 95 % interval of it.
        p: corrected; None if there is no test.
        parted: the first job whose outputs differ, "" if none does, None if the other copy kept no hashes.
        why: what was different before that: what the job was told, or nothing but machine and versions.
    """

    pair: str
    name: str
    label: str
    verdict: str
    ours: float | None = None
    theirs: float | None = None
    difference: float | None = None
    interval: float | None = None
    p: float | None = None
    parted: str | None = None
    why: str = ""


@dataclass(frozen=True)
class Verification:
    """What came of a comparison.

    Attributes:
        theirs: what the other copy is called.
        asked: parameters in which the two studies differ, one clause each; then they are not the same study.
        machines: in what hardware and versions they differ, one clause each.
        digits: decimals of the measure.
    """

    study: str
    theirs: str
    cells: tuple[Compared, ...]
    asked: tuple[str, ...]
    machines: tuple[str, ...]
    unit: str
    digits: int

    def count(self, *verdicts: str) -> int:
        return sum(cell.verdict in verdicts for cell in self.cells)

    @property
    def reproduced(self) -> bool:
        """Whether it is the same study, all cells are there, some could be tested, and no difference was found."""
        return not self.asked and not self.count(DIFFERENT, MISSING) and self.count(SAME, WITHIN) > 0


def compare(plan: Plan, ours: Recorded, theirs: Recorded) -> Verification:
    """Compare the results here with another copy of them."""
    mine, other = _entries(ours), _entries(theirs)
    labels = {row["name"]: row["label"] for side in (theirs, ours) for row in side.tables.table["rows"]}
    cells = [
        _cell(plan, key, labels[key[1]], mine.get(key), other.get(key), ours, theirs)
        for key in dict.fromkeys([*mine, *other])
    ]
    measure = ours.tables.table["measure"]
    asked, machines = tuple(_asked(ours, theirs)), tuple(_machines(ours, theirs))
    title = plan.layout.study
    return Verification(title, theirs.name, tuple(_judged(cells)), asked, machines, measure["unit"], measure["digits"])


def _entries(side: Recorded) -> dict[tuple[str, str], dict[str, Any]]:
    """Entries of the table by pair and name; a teacher may have no such measure, and then is no cell."""
    rows = side.tables.table["rows"]
    found = {(pair, row["name"]): (row, entry) for row in rows for pair, entry in row["entries"].items()}
    return {key: entry for key, (row, entry) in found.items() if row["kind"] != "teacher" or entry["mean"] is not None}


def _cell(
    plan: Plan,
    key: tuple[str, str],
    label: str,
    mine: dict[str, Any] | None,
    other: dict[str, Any] | None,
    ours: Recorded,
    theirs: Recorded,
) -> Compared:
    """One cell, tested but not yet corrected for there being others."""
    pair, name = key
    left: float | None = mine["mean"] if mine else None
    right: float | None = other["mean"] if other else None
    cell = Compared(pair, name, label, MISSING, left, right)
    if mine is None or other is None or left is None or right is None:
        return cell
    jobs = _jobs(plan, pair, name)
    parted, why = _parting(jobs, theirs)
    answered = [str(job.outputs["predictions"]) for job in jobs if job.stage == "evaluate"]
    known = parted == "" or (
        parted is None and answered
    )  # a table's record holds hashes of the predictions in any case
    alike = all(ours.tables.inputs.get(path) == theirs.tables.inputs.get(path) for path in answered)
    if known and alike and left == right:
        return replace(cell, verdict=SAME, difference=0.0, interval=0.0, parted=parted)
    found = paired(*(dict(zip(entry["seeds"], entry["values"], strict=True)) for entry in (mine, other)))
    shift, interval, p = found.summary.mean, found.summary.ci95, found.p
    if shift is None:
        shift = left - right  # of a teacher
    elif p is None and found.summary.n >= SMALLEST and abs(shift) < FLAT:
        p = 1.0  # nothing differs, run by run
    verdict, interval = (UNTESTED, None) if p is None else (WITHIN, interval)
    return replace(cell, verdict=verdict, difference=shift, interval=interval, p=p, parted=parted, why=why)


def _judged(cells: list[Compared]) -> Iterator[Compared]:
    corrected = iter(holm([cell.p for cell in cells if cell.p is not None]))
    for cell in cells:
        if cell.p is None:
            yield cell
            continue
        p = next(corrected)
        yield replace(cell, p=p, verdict=DIFFERENT if p < ALPHA else WITHIN)


def _jobs(plan: Plan, pair: str, name: str) -> list[Job]:
    """The jobs that a cell comes from, in the order in which they run; of a teacher's row those up to the teacher."""
    if name == "teacher":
        last = [job for job in plan.needs(plan.job("pair", pair=pair)) if job.stage == "teacher"]
    else:
        last = [job for job in plan if job.stage == "evaluate" and job.keys[:2] == (pair, name)]
    needed, todo = set[str](), list(last)
    while todo:
        job = todo.pop()
        if job.name not in needed:
            needed.add(job.name)
            todo += plan.needs(job)
    return [job for job in plan if job.name in needed]


def _parting(jobs: list[Job], theirs: Recorded) -> tuple[str | None, str]:
    """Return the first job with other outputs than in the other copy ("": none; None: not known), and the reason."""
    if not theirs.contents:
        return None, ""
    for job in jobs:
        paths = [path for name, path in job.outputs.items() if name != "record" and job.stage not in _LINES]
        if any((known := theirs.contents.get(str(p))) is None or not known.is_in(p) for p in paths):
            return job.name, _told(job, theirs)
    return "", ""


def _told(job: Job, theirs: Recorded) -> str:
    """Say in what a job was told something else than in the other copy; all that it reads is the same."""
    if job.name in theirs.specs:
        return difference(theirs.specs[job.name], job)
    spec = theirs.contents.get(str(job.path))
    if spec is None:
        return "the other copy does not have this job"
    return "" if spec.is_in(job.path) else "its parameters or its code changed"


def _asked(ours: Recorded, theirs: Recorded) -> Iterator[str]:
    """Parameters that differ, but for labels, how the table is laid out, and which runs are kept in git."""
    mine, other = (_flat(side.tables.spec.get("values", {})) for side in (ours, theirs))
    for key in sorted({*mine, *other}):
        shown = key.endswith(".label") or key.startswith("tables.") or key == "kept"
        if shown or mine.get(key) == other.get(key):
            continue
        yield f"{key} is {mine.get(key, 'not set')} here and {other.get(key, 'not set')} there"


def _flat(values: Any, where: str = "") -> dict[str, str]:
    if not isinstance(values, dict):
        return {where: str(values)}
    return {k: v for key, value in values.items() for k, v in _flat(value, f"{where}.{key}".lstrip(".")).items()}


def _machines(ours: Recorded, theirs: Recorded) -> Iterator[str]:
    mine, other = ours.tables.environment, theirs.tables.environment
    for key in dict.fromkeys([*mine, *other]):
        if mine.get(key) != other.get(key):
            yield f"{key.replace('_', ' ')}: {mine.get(key, 'none')} here, {other.get(key, 'none')} there"
    if ours.devices != theirs.devices and ours.devices and theirs.devices:
        yield f"trained on: {' and '.join(ours.devices)} here, {' and '.join(theirs.devices)} there"
