"""Runs kept in git: what was measured of students whose weights are not here.

An hour on a borrowed machine adds to the same table: `distillery keep` copies what was measured there to
results/STUDY/kept, and the tables take a run from there when its artefacts are missing or of other code. Beside each
lies its origin: what the jobs before the evaluation were told, of data, teachers and training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distillery.pipeline.current import Judge
from distillery.pipeline.job import Job, Plan
from distillery.records.io import DistilleryError, atomic_path, read_json, sha256_file
from distillery.records.named import ABSENT
from distillery.records.schema import Metrics, read

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)


def files(job: Job) -> tuple[Path, Path, Path]:
    """Where the record, the arrays and the origin of an evaluation are kept."""
    record = job.layout.kept_metrics(*job.keys)
    return record, record.with_suffix(".safetensors"), record.with_suffix(".origin.json")


def keep(plan: Plan) -> list[Job]:
    """Keep what was measured in all evaluations that are current; return those that were not kept already."""
    judge, new = Judge(plan, thorough=True), []
    for job in plan:
        if job.stage != "evaluate" or not judge.verdict(job).current:
            continue
        origin = json.dumps(_origin(plan, job), indent=1, sort_keys=True) + "\n"
        made = (job.record.read_bytes(), job.outputs["predictions"].read_bytes(), origin.encode())
        content = dict(zip(files(job), made, strict=True))
        if all(place.exists() and place.read_bytes() == held for place, held in content.items()):
            continue
        for place in reversed(content):  # the record comes last: what is kept has one
            with atomic_path(place) as temporary:
                temporary.write_bytes(content[place])
        new.append(job)
    return new


def find(plan: Plan, job: Job) -> tuple[Path, Path] | None:
    """Record and arrays of a kept evaluation of just these parameters, by whatever code; None if there is none.

    Raises DistilleryError if they are damaged.
    """
    record, arrays, origin = files(job)
    if not record.exists():
        return None
    found = read(record, Metrics)
    if any(found.spec.get(key) != job.spec[key] for key in ("values", "keys", "seeds")):
        return None
    if not arrays.exists() or sha256_file(arrays) != found.sha256(job.outputs["predictions"]):
        raise DistilleryError(f"{arrays} is not the file that {record} describes: take both from git again")
    then, now = read_json(origin), _origin(plan, job)
    if str(now["data"]["files"]).startswith(ABSENT):  # a clone may be without the user's own data
        now["data"]["files"] = then.get("data", {}).get("files")
    return (record, arrays) if then == now else None


def _origin(plan: Plan, job: Job) -> dict[str, Any]:
    """What the jobs before this one are told, by name."""
    found: dict[str, Any] = {}
    for earlier in plan.needs(job):
        found |= {earlier.name: dict(earlier.spec["values"])} | _origin(plan, earlier)
    return found
