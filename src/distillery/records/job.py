"""The record that every artefact carries, and the provenance that lies beside it.

The record (a declared output) holds what two identical runs agree on: code, parameters, inputs, versions, hardware.
What they cannot agree on (wall time, host, git revision, scheduler job) goes to an undeclared file under `provenance/`,
so that reproducing a study reproduces every recorded hash.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distillery import settings
from distillery.pipeline.layout import Layout, code_files, tracked
from distillery.records import io as artifacts
from distillery.records import kept
from distillery.records.io import DistilleryError
from distillery.records.leaving import leaving_in_order
from distillery.records.node_cache import sha256_once
from distillery.study.model import Study, read_params


def describe(stage: str, inputs: list[Path], params: Path, loss: Any = None, /, **wildcards: str) -> dict[str, Any]:
    """Build the common part of a record; `loss` is the method, for `distill`.

    Raises DistilleryError if an input is missing, and says how to make it.
    """
    for path in inputs:
        if not path.exists():
            raise DistilleryError(
                f"{stage} needs {path}, which is not there: run the stages before it (`snakemake {path}`)"
            )
    raw = read_params(params)
    values, layout = json.loads(tracked(stage, raw, **wildcards)), Layout(raw["study"])
    return {
        "stage": stage,
        **wildcards,
        "params": values,
        "params_sha256": artifacts.sha256_json(values),
        "code_sha256": artifacts.sha256_tree([Path(f) for f in code_files(stage, method=loss)]),
        "inputs": {str(path): sha256_once(path, layout.hash_note(path)) for path in inputs},
        "environment": artifacts.environment(),
    }


class Kept(SystemExit):
    """The very same thing is there already, made by another process: the command succeeds without working."""

    def __init__(self) -> None:
        super().__init__(0)


@contextmanager
def making(
    layout: Layout, output: Path, made: Path | None = None, record: dict[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Hold the lock of `output` while it is made, then write what was volatile about making it.

    Yields a dictionary for further volatile facts (seconds per epoch, for instance).

    A person who starts a command twice is told so (DistilleryError). A job of a scheduler waits instead: it may be the
    double of one that outlived its Snakemake, and failing would only use up its retries. Engines delete the outputs of
    a job before they start it, so what is there after a wait was made by the process waited for: if the file `made`
    then holds this job's `record`, it is kept (raises Kept). Otherwise that process died, and this one goes on.
    What `kept` has of this very job is put back instead of being made again (raises Kept, too).
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    began, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    volatile: dict[str, Any] = {}
    wait = settings.slurm_job() is not None
    with leaving_in_order("the same command starts over"), artifacts.lock(output, wait) as waited:
        if waited and made and record and output.exists() and kept.agrees(made, record):
            print(f"{output} was made meanwhile by the process waited for: kept", flush=True)
            raise Kept
        if made and record and kept.restore(layout, record, output, made):
            raise Kept
        yield volatile
        facts = {
            "output": str(output),
            "began": began.isoformat(timespec="seconds"),
            "wall_seconds": round(time.perf_counter() - clock, 3),
            "host": platform.node(),
            "revision": artifacts.revision(Path()),
            "slurm_job": settings.slurm_job(),
        }
        path = layout.provenance(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(path, facts | volatile)
        if made:
            kept.keep(layout, output, made)


def prepared(study: Study, layout: Layout) -> None:
    """Refuse early and clearly if the results cannot be written here."""
    for folder in (layout.artifacts, layout.results):
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        if not os.access(existing, os.W_OK):
            raise DistilleryError(f"cannot write below {existing}: make it writable, or run from a writable copy")
