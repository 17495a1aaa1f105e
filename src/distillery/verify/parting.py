"""Where two copies of a study part: the first job of a cell whose outputs differ, and what it was told."""

from __future__ import annotations

from distillery.pipeline.current import difference
from distillery.pipeline.job import Job, Plan
from distillery.verify.record import Recorded

DECIDES_RESULTS = False
_LINES = ("pair",)  # stages whose outputs only name those of others


def jobs_of(plan: Plan, pair: str, name: str) -> list[Job]:
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


def parting(jobs: list[Job], theirs: Recorded) -> tuple[str | None, str]:
    """Return the first job with other outputs than in the other copy ("": none; None: not known), and the reason.

    Not known is it where the other copy kept no hashes, or where files are not here: of runs that git keeps.
    """
    if not theirs.contents:
        return None, ""
    found: str | None = ""
    for job in jobs:
        paths = [path for name, path in job.outputs.items() if name != "record" and job.stage not in _LINES]
        if paths and not any(path.exists() for path in paths):
            found = None
        elif any((known := theirs.contents.get(str(p))) is None or not known.is_in(p) for p in paths):
            return job.name, _told(job, theirs)
    return found, ""


def _told(job: Job, theirs: Recorded) -> str:
    """Say in what a job was told something else than in the other copy; all that it reads is the same."""
    if job.name in theirs.specs:
        return difference(theirs.specs[job.name], job)
    spec = theirs.contents.get(str(job.path))
    if spec is None:
        return "the other copy does not have this job"
    return "" if spec.is_in(job.path) else "its parameters or its code changed"
