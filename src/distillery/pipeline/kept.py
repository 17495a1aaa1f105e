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
from distillery.pipeline.layout import Layout
from distillery.records.io import DistilleryError, atomic_path, read_json, sha256_file
from distillery.records.named import ABSENT
from distillery.records.schema import Metrics, read
from distillery.study.model import expand_seeds

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)


def _files(at: Layout, pair: str, method: str, seeds: str) -> tuple[Path, Path, Path]:
    """Where the record, the arrays and the origin of an evaluation are kept."""
    record = at.kept_metrics(pair, method, seeds)
    return record, record.with_suffix(".safetensors"), record.with_suffix(".origin.json")


def keep(plan: Plan) -> list[Job]:
    """Keep what was measured in all evaluations that are current; return those that were not kept already."""
    judge, new = Judge(plan, thorough=True), []
    for job in plan:
        if job.stage != "evaluate" or not judge.verdict(job).current:
            continue
        origin = json.dumps(_origin(plan, job), indent=1, sort_keys=True) + "\n"
        made = (job.record.read_bytes(), job.outputs["predictions"].read_bytes(), origin.encode())
        content = dict(zip(_files(job.layout, *job.keys), made, strict=True))
        if all(place.exists() and place.read_bytes() == held for place, held in content.items()):
            continue
        for place in reversed(content):  # the record comes last: what is kept has one
            with atomic_path(place) as temporary:
                temporary.write_bytes(content[place])
        new.append(job)
    return new


def due(plan: Plan) -> str:
    """What is due after runs were kept: the tables say what is, so that they are made of another spec than before."""
    tables = "`distillery tables` shows them"
    if any(job.stage != "tables" for job in Judge(plan).due()):
        return tables  # of a study that is not finished here, and cannot be recorded
    return f"next: {tables}, then `distillery record`, or a clone cannot `dvc pull`"


def find(plan: Plan, job: Job) -> list[tuple[Path, Path, tuple[int, ...]]]:
    """Records and arrays of kept evaluations of just these parameters, by whatever code, and the seeds to take of each.

    Whatever block of seeds they were kept as: `seeds: ["0-2"]` grown to `["0-4"]` loses no run. The job's own block
    comes first. Raises DistilleryError if they are damaged.
    """
    own, found, wanted = job.keys[2], [], set(job.seeds)
    folder = job.layout.kept_metrics(*job.keys).parent
    blocks = {path.stem for path in folder.glob("*.json") if "." not in path.stem}  # the others are origins
    for block in sorted(blocks, key=lambda block: (block != own, block)):
        seeds = tuple(sorted(wanted & {*expand_seeds(block)}))
        if seeds and (place := _kept_as(plan, job, block)):
            found.append((*place, seeds))
            wanted -= {*seeds}
    return found


def _kept_as(plan: Plan, job: Job, block: str) -> tuple[Path, Path] | None:
    """Record and arrays of the runs of a job's cell that were kept as this block; None if of other parameters."""
    pair, method, own = job.keys
    record, arrays, origin = _files(job.layout, pair, method, block)
    found = read(record, Metrics)
    told = {"values": job.spec["values"], "keys": job.wildcards | {"seed": block}, "seeds": [*expand_seeds(block)]}
    if any(found.spec.get(key) != value for key, value in told.items()):
        return None
    if not arrays.exists() or sha256_file(arrays) != found.sha256(job.layout.predictions(pair, method, block)):
        raise DistilleryError(f"{arrays} is not the file that {record} describes: take both from git again")
    then, now = read_json(origin), _origin(plan, job)
    now[f"distill {pair} {method} {block}"] = now.pop(f"distill {pair} {method} {own}")
    if str(now["data"]["files"]).startswith(ABSENT):  # a clone may be without the user's own data
        now["data"]["files"] = then.get("data", {}).get("files")
    return (record, arrays) if then == now else None


def _origin(plan: Plan, job: Job) -> dict[str, Any]:
    """What the jobs before this one are told, by name."""
    found: dict[str, Any] = {}
    for earlier in plan.needs(job):
        found |= {earlier.name: dict(earlier.spec["values"])} | _origin(plan, earlier)
    return found
