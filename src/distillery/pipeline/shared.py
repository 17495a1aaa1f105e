"""What another study here has made already: data, teachers and their tables are taken over instead of being made twice.

Two jobs are the same if they were told the same (effective parameters and code) and read the same contents; names of
studies, teachers and files do not count. The files are copied, not linked: nothing may be written through them into
DVC's cache. The environment in the record is that of who made them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from distillery.pipeline.job import Job
from distillery.pipeline.work import Work
from distillery.records.files import DistilleryError, atomic_path, lock, vouched
from distillery.records.io import read_json, sha256_file, write_json
from distillery.records.schema import KINDS, Record, TableRecord, read, sealed

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)
SHARED = ("data", "teacher", "cache")


def take_over(work: Work) -> Path | None:
    """Copy the outputs of the same job of another study here; return its record, None if there is none."""
    job, inputs = work.job, work.inputs
    if job.stage not in SHARED:
        return None
    for path in _records(job):
        with suppress(DistilleryError, KeyError, OSError):  # unreadable, of another version, just being made
            record = read(path, KINDS[job.stage])
            theirs = Job.from_spec(record.spec)
            same = _same(theirs, record, job, inputs) and _budgeted(record, work.settings)
            if same:
                # Whoever makes it already is waited for, or told of, by the stage.
                with lock(job.locked), vouched(job.record, job.outputs.values()):
                    _copy(theirs, record, job, inputs)
                return path
    return None


def _records(job: Job) -> Iterator[Path]:
    """The records of this stage that other studies have here."""
    within = job.record.relative_to(job.layout.artifacts)
    pattern = within if job.stage == "data" else within.parent.parent / "*" / within.name
    for folder in sorted(job.layout.artifacts.parent.glob("*")):
        if folder != job.layout.artifacts:
            yield from sorted(folder.glob(str(pattern)))


def _same(theirs: Job, record: Record, job: Job, inputs: dict[str, str]) -> bool:
    """Whether both were told and read the same."""
    if (theirs.values, theirs.code, theirs.seeds) != (job.values, job.code, job.seeds):
        return False
    read_there = {name: record.inputs[str(path)] for name, path in theirs.reads.items()}
    return read_there == {name: inputs[str(path)] for name, path in job.reads.items()}


def _budgeted(record: Record, settings: dict[str, Any]) -> bool:
    """Whether the budget here, which is in no spec, decides what theirs did: a view table, or none."""
    if not isinstance(record, TableRecord):
        return True
    over = record.bytes > settings["cache"]["budget_gb"] * 1e9
    return over if (record.live or "").endswith("over cache.budget_gb") else bool(record.live) or not over


def _copy(theirs: Job, record: Record, job: Job, inputs: dict[str, str]) -> None:
    """Copy the files, verified by their hashes, then write the record that a job of this name would have written."""
    outputs: dict[str, dict[str, Any]] = {}
    for name, target in job.outputs.items():
        if name == "record":
            continue
        source = theirs.outputs[name]
        content = record.outputs[str(source)]
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
            if sha256_file(temporary) != content.sha256:
                raise DistilleryError(f"{source} is not what its record describes")
        outputs[str(target)] = content.model_dump()
    document = read_json(theirs.record)
    document |= {"spec": job.spec, "spec_sha256": job.sha256, "inputs": inputs, "outputs": outputs}
    write_json(job.record, sealed(document), sort=False)
