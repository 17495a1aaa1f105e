"""Cell by cell: the same bits, indistinguishable, or different; and where two copies of a study part.

Declared design. Two trainings with one seed on two kinds of machine part in the last bits and end as two draws from one
distribution. So cells are compared as methods are in a table: paired by seed, by a two-sided t test, corrected for all
tested cells (Holm). "Indistinguishable" says that no difference was found; the interval says how large one may still
be. It is that of the cell alone, not corrected, and may leave out zero. What cannot be tested reproduces nothing: fewer
than three common seeds, or differences that are all equal (see `statistics.paired`), unless they are all zero.

A copy with more seeds is a copy of the same study: the seeds of both are compared. If they were trained in other
blocks, no file holds just their bits, and all that was measured of them is compared: "same numbers".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from distillery.errors import DistilleryError
from distillery.evaluation.statistics import ALPHA, FLAT, SMALLEST, holm, paired, summarise
from distillery.pipeline.job import Job, Plan
from distillery.verify.parting import jobs_of, parting
from distillery.verify.record import Recorded

DECIDES_RESULTS = False
SAME, EQUAL, ALIKE, UNTESTED, DIFFERENT, MISSING = (
    "same bits",
    "same numbers",
    "indistinguishable",
    "cannot be tested",
    "different",
    "missing",
)
SHOWN = 3  # parameters that differ, of two studies that are not the same


@dataclass(frozen=True)
class Compared:
    """One cell of both tables.

    Attributes:
        ours, theirs: the means over the common seeds, in the measure's unit; None where there is none.
        difference, interval: ours minus theirs, and half the 95 % interval of it.
        p: corrected; None if there is no test.
        parted: the first job whose outputs differ, "" if none does, None if the other copy kept no hashes.
        why: what was different before that: what the job was told, or nothing but machine and versions.
        common, here, there: the seeds that both copies have, and those of one only; none of a teacher.
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
    common: tuple[int, ...] = ()
    here: tuple[int, ...] = ()
    there: tuple[int, ...] = ()


@dataclass(frozen=True)
class Verification:
    """What came of a comparison.

    Attributes:
        theirs: what the other copy is called.
        machines: in what hardware and versions they differ, one clause each.
        digits: decimals of the measure.
    """

    study: str
    theirs: str
    cells: tuple[Compared, ...]
    machines: tuple[str, ...]
    unit: str
    digits: int

    def count(self, *verdicts: str) -> int:
        return sum(cell.verdict in verdicts for cell in self.cells)

    @property
    def identical(self) -> bool:
        """Whether all files of all cells are the same."""
        return bool(self.cells) and self.count(SAME) == len(self.cells)

    @property
    def reproduced(self) -> bool:
        """Whether all cells are there, some could be tested, and no difference was found."""
        return not self.count(DIFFERENT, MISSING) and self.count(SAME, EQUAL, ALIKE) > 0


def refuse_another(ours: Recorded, theirs: Recorded) -> None:
    """Raise DistilleryError if the other copy is of a study with other parameters: no cell of it can be compared.

    More seeds make no other study.
    """
    if asked := list(_asked(ours, theirs)):
        unset = "not set"
        said = [f"{key} is {here or unset} here and {there or unset} there" for key, here, there in asked]
        more = f", and {len(asked) - SHOWN} more" if len(asked) > SHOWN else ""
        what, then = "holds another study", "name a revision or a folder that holds a record of this one"
        if all(_unknown(key, here, ours) or _unknown(key, there, theirs) for key, here, there in asked):
            what = "is of an older or newer form, by a Distillery that had other keys, or holds another study"
            then = "have its tables made anew by the Distillery that is here (`distillery tables`), or name another"
        raise DistilleryError(f"{theirs.name} {what}: {'; '.join(said[:SHOWN])}{more}: {then}")


def refuse_pulled(found: Verification, plan: Plan) -> None:
    """Raise DistilleryError if all files are the other copy's, and no student was trained in this folder.

    Notes of a training are neither in git nor in DVC's cache.
    """
    trained = any(job.provenance.exists() for job in plan if job.stage == "distill")
    if found.identical and plan.layout.all_metrics.exists() and not trained:
        raise DistilleryError(
            f"the files of {found.study} are bit for bit those of {found.theirs}, but no student was trained here: "
            "they were pulled or copied, which reproduces nothing: `snakemake --cores all --forceall`, then verify"
        )


def compare(plan: Plan, ours: Recorded, theirs: Recorded) -> Verification:
    """Compare the results here with another copy of them, of the same study."""
    mine, other = _entries(ours), _entries(theirs)
    labels = {row["name"]: row["label"] for side in (theirs, ours) for row in side.tables.table["rows"]}
    cells = [
        _cell(plan, key, labels[key[1]], mine.get(key), other.get(key), ours, theirs)
        for key in dict.fromkeys([*mine, *other])
    ]
    measure = ours.tables.table["measure"]
    machines, title = tuple(_machines(ours, theirs)), plan.layout.study
    return Verification(title, theirs.name, tuple(_judged(cells)), machines, measure["unit"], measure["digits"])


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
    means = [entry["mean"] if entry else None for entry in (mine, other)]
    cell = Compared(pair, name, label, MISSING, ours=means[0], theirs=means[1])
    if mine is None or other is None or cell.ours is None or cell.theirs is None:
        return cell
    left, right = (dict(zip(entry["seeds"], entry["values"], strict=True)) for entry in (mine, other))
    common = tuple(seed for seed in left if seed in right)
    here, there = (tuple(seed for seed in side if seed not in common) for side in (left, right))
    if here or there:
        means = [summarise([side[seed] for seed in common]).mean for side in (left, right)]
        cell = replace(cell, ours=means[0], theirs=means[1])
    blocks = _blocks(theirs) or _blocks(ours)
    jobs = [job for job in jobs_of(plan, pair, name) if not job.seeds or job.keys[2] in blocks]
    parted, why = parting(jobs, theirs)
    cell = replace(cell, parted=parted, why=why, common=common, here=here, there=there)
    alike = cell.ours is not None and cell.ours == cell.theirs and all(left[seed] == right[seed] for seed in common)
    if alike and not parted and (verdict := _unchanged(cell, jobs, ours, theirs)):
        return replace(cell, verdict=verdict, difference=0.0, interval=0.0)
    found = paired(left, right)
    shift, interval, p = found.summary.mean, found.summary.ci95, found.p
    if name == "teacher" and cell.ours is not None and cell.theirs is not None:
        shift = cell.ours - cell.theirs
    elif shift is not None and p is None and found.summary.n >= SMALLEST and abs(shift) < FLAT:
        p = 1.0  # nothing differs, run by run
    verdict, interval = (UNTESTED, None) if p is None else (ALIKE, interval)
    return replace(cell, verdict=verdict, difference=shift, interval=interval, p=p)


def _unchanged(cell: Compared, jobs: list[Job], ours: Recorded, theirs: Recorded) -> str:
    """Whether equal means come of the same bits or, of seeds in other blocks, the same numbers; "" if not known."""
    tests = [job for job in jobs if job.stage == "evaluate"]
    answers = [str(job.outputs["predictions"]) for job in tests]
    if not all(ours.answers.get(path) and ours.answers[path] == theirs.answers.get(path) for path in answers):
        return ""
    if {*cell.common} <= {seed for job in tests for seed in job.seeds}:
        return SAME if answers or cell.parted == "" else ""
    mine, other = (side.measured(cell.pair, cell.name, cell.common) for side in (ours, theirs))
    return EQUAL if all(mine) and mine == other else ""


def _blocks(side: Recorded) -> list[str]:
    """The blocks of seeds that a copy was trained in; none if its record does not say."""
    return [str(block) for block in side.tables.spec.get("values", {}).get("seeds", [])]


def _judged(cells: list[Compared]) -> Iterator[Compared]:
    corrected = iter(holm([cell.p for cell in cells if cell.p is not None]))
    for cell in cells:
        if cell.p is None:
            yield cell
            continue
        p = next(corrected)
        yield replace(cell, p=p, verdict=DIFFERENT if p < ALPHA else ALIKE)


def _unknown(key: str, value: str | None, side: Recorded) -> bool:
    """Whether a copy says nothing of a key in a block that it has: whoever wrote it may not have known the key."""
    block = key[: key.rfind(".") + 1]
    return value is None and any(known.startswith(block) for known in _flat(side.tables.spec.get("values", {})))


def _asked(ours: Recorded, theirs: Recorded) -> Iterator[tuple[str, str | None, str | None]]:
    """Parameters that differ, here and there (None: not set).

    But for seeds, labels, how the table is laid out, and which runs are kept in git.
    """
    mine, other = (_flat(side.tables.spec.get("values", {})) for side in (ours, theirs))
    for key in sorted({*mine, *other}):
        shown = key.endswith(".label") or key.startswith(("tables.", "basis.")) or key in ("kept", "seeds")
        if shown or mine.get(key) == other.get(key):
            continue
        yield key, mine.get(key), other.get(key)


def _flat(values: Any, where: str = "") -> dict[str, str]:
    if not isinstance(values, dict):
        return {where: str(values)}
    return {k: v for key, value in values.items() for k, v in _flat(value, f"{where}.{key}".lstrip(".")).items()}


def _machines(ours: Recorded, theirs: Recorded) -> Iterator[str]:
    mine, other = ours.tables.environment, theirs.tables.environment
    for key in dict.fromkeys([*mine, *other]):
        if mine.get(key) != other.get(key):
            here, there = (side.get(key, "not recorded") for side in (mine, other))
            yield f"{key.replace('_', ' ')}: {here} here, {there} there"
    if ours.devices != theirs.devices and ours.devices and theirs.devices:
        yield f"trained on: {' and '.join(ours.devices)} here, {' and '.join(theirs.devices)} there"
