"""Runs kept in git: what was measured of students whose weights are not here.

An hour on a borrowed machine adds to the same table: `distillery keep` copies what was measured there to
results/STUDY/kept, and the tables take a run from there when its artefacts are missing or of other code.
"""

from __future__ import annotations

from pathlib import Path

from distillery.pipeline.current import Judge
from distillery.pipeline.job import Job, Plan
from distillery.records.io import DistilleryError, atomic_path, sha256_file
from distillery.records.schema import Metrics, read

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)


def files(job: Job) -> tuple[Path, Path]:
    """Where the record and the arrays of an evaluation are kept."""
    record = job.layout.kept_metrics(*job.keys)
    return record, record.with_suffix(".safetensors")


def keep(plan: Plan) -> list[Job]:
    """Keep what was measured in all evaluations that are current; return those that were not kept already."""
    judge, new = Judge(plan, thorough=True), []
    for job in plan:
        if job.stage != "evaluate" or not judge.verdict(job).current:
            continue
        made = (job.record, job.outputs["predictions"])
        content = {place: source.read_bytes() for place, source in zip(files(job), made, strict=True)}
        if all(place.exists() and place.read_bytes() == held for place, held in content.items()):
            continue
        for place in reversed(content):  # the record comes last: what is kept has one
            with atomic_path(place) as temporary:
                temporary.write_bytes(content[place])
        new.append(job)
    return new


def find(job: Job) -> tuple[Path, Path] | None:
    """Record and arrays of a kept evaluation of just these parameters, by whatever code; None if there is none.

    Raises DistilleryError if they are damaged.
    """
    record, arrays = files(job)
    if not record.exists():
        return None
    found = read(record, Metrics)
    if any(found.spec.get(key) != job.spec[key] for key in ("values", "keys", "seeds")):
        return None
    if not arrays.exists() or sha256_file(arrays) != found.sha256(job.outputs["predictions"]):
        raise DistilleryError(f"{arrays} is not the file that {record} describes: take both from git again")
    return record, arrays
