"""How a stage works: inputs verified, one maker at a time, a record at the end, and the rest beside it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery import settings
from distillery.pipeline.fingerprint import components, fingerprint, ours, tree_state
from distillery.pipeline.internals import members
from distillery.pipeline.job import Job
from distillery.records import io as artifacts
from distillery.records.io import DistilleryError, StaleInput
from distillery.records.leaving import leaving_in_order
from distillery.records.node_cache import sha256_once
from distillery.records.schema import KINDS, VERSION, read, sealed

if TYPE_CHECKING:
    import torch

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)
# Of an environment; nodes of a cluster may differ in these.
MACHINE = {"cpu", "cpu_count", "cpu_instructions", "platform"}
PLANNED = "DISTILLERY_PLANNED"  # when the engine that queued a job had planned it, as the time of a file


class Kept(SystemExit):
    """The very same thing is there already, made by another process: the command succeeds without working."""

    def __init__(self) -> None:
        super().__init__(0)


class Work:
    """One job in the making.

    Raises DistilleryError if an input is missing (tables are made of what there is), StaleInput if the job is not any
    more what was queued, or if the code is not the code that was planned.

    Attributes:
        inputs: hashes of what the job reads, by path.
        volatile: facts for the provenance file (seconds per epoch, for instance).
    """

    def __init__(self, job: Job, settings: dict[str, Any]) -> None:
        self.job, self.settings, self.volatile = job, settings, dict[str, Any]()
        _as_queued(job)
        here = [path for path in job.reads.values() if path.exists()]
        if job.stage != "tables" and (absent := [path for path in job.reads.values() if path not in here]):
            raise DistilleryError(
                f"{job.stage} needs {absent[0]}, which is not there: run the stages before it (`snakemake {absent[0]}`)"
            )
        self.inputs = {str(path): sha256_once(path, job.layout.hash_note(path)) for path in here}
        self.head: dict[str, Any] = {
            "version": VERSION,
            "spec": job.spec,
            "spec_sha256": job.sha256,
            "inputs": self.inputs,
            "environment": artifacts.environment(("timm",) if '"timm/' in json.dumps(job.values) else ()),
        }

    def on(self, device: torch.device) -> None:
        """Say what the job computes on. A GPU's name is part of the job's identity: another one gives other bits.

        Raises DistilleryError if torch uses more of the CPU's instructions than the study allows.
        """
        from torch import backends, cuda

        if self.job.values.get("instructions") == "avx2" and backends.cpu.get_cpu_capability() == "AVX512":
            raise DistilleryError(
                f"{self.job.name}: `instructions: avx2` comes too late for this process, where torch uses AVX-512 "
                "already: run the job in a process of its own (`distillery run`)"
            )
        if device.type == "cuda":
            self.head["environment"]["cuda_device"] = cuda.get_device_name(device)

    def sha256(self, name: str) -> str:
        """Hash of one of the files that the job reads."""
        return self.inputs[str(self.job.reads[name])]

    @property
    def identity(self) -> str:
        """Hash of all that determines the outputs: a checkpoint of another identity is of no use."""
        return artifacts.sha256_json(self.head | {"environment": decisive(self.head["environment"])})

    @contextmanager
    def making(self, alone: bool = True) -> Iterator[dict[str, Any]]:
        """Hold the lock of the job while it is made, then write what was volatile about making it. Yields `volatile`.

        A person who starts a command twice is told so (DistilleryError). A job of a scheduler waits instead: it may be
        the double of one that outlived its Snakemake, and failing would only use up its retries. Engines delete the
        outputs of a job before they start it, so what is there after waiting was written by the previous holder of the
        lock: if that is this very job, it is kept (raises Kept). Otherwise that process died, and this one goes on.
        `alone`: no other process waits for this one to join it.
        """
        output = self.job.locked
        output.parent.mkdir(parents=True, exist_ok=True)
        began, clock, started = datetime.datetime.now(datetime.UTC), time.perf_counter(), time.process_time()
        wait = settings.slurm_job() is not None
        with leaving_in_order("the same command starts over"), artifacts.lock(output, wait) as waited:
            if waited and alone and self._made():
                print(f"{output} was made meanwhile by the process waited for: kept", flush=True)
                raise Kept
            with artifacts.vouched(self.job.record, self.job.outputs.values()):
                yield self.volatile
            facts = {
                "output": str(output),
                "began": began.isoformat(timespec="seconds"),
                "start_seconds": round(started, 3),  # of the processor: what it takes to start such a process
                "wall_seconds": round(time.perf_counter() - clock, 3),
                "host": platform.node(),
                "revision": artifacts.revision(Path()),
                "slurm_job": settings.slurm_job(),
            }
            artifacts.write_json(self.job.provenance, facts | self.volatile)

    def _made(self) -> bool:
        if not all(path.exists() for path in self.job.outputs.values()):
            return False
        try:
            found = read(self.job.record, KINDS[self.job.stage])
        except DistilleryError:  # damaged, or of another version: made anew
            return False
        return found.spec == self.job.spec and found.inputs == self.inputs

    def write(self, known: dict[Path, str] | None = None, /, **facts: Any) -> None:
        """Write the record, with the hashes of all other outputs (those not `known` are computed)."""
        document = self.head | facts | {"outputs": contents(self.job, known or {})}
        document = KINDS[self.job.stage].model_validate(document).model_dump(exclude_none=True)
        artifacts.write_json(self.job.record, sealed(document), sort=False)


def decisive(environment: dict[str, Any]) -> dict[str, Any]:
    """What of an environment two nodes have in common if what one began may be finished on the other."""
    return {key: value for key, value in environment.items() if key not in MACHINE}


def contents(job: Job, known: dict[Path, str]) -> dict[str, dict[str, Any]]:
    """Hash and size of every output but the record."""
    paths = [path for name, path in job.outputs.items() if name != "record"]
    files = [file for path in paths for file in (members(path) if path.is_dir() else [path])]
    return {str(f): {"sha256": known.get(f) or artifacts.sha256_file(f), "bytes": f.stat().st_size} for f in files}


def _as_queued(job: Job) -> None:
    """Refuse to make anything else than what the engine planned, or by other code than the plan was made for."""
    planned = os.environ.get(PLANNED)
    if planned and job.path.stat().st_mtime_ns > int(planned):
        raise StaleInput(
            f"{job.name}: the study or the code changed while this job was queued, and it would make something else: "
            "start the engine again"
        )
    if not _untouched(job) and job.code != fingerprint(job.stage, job.values):
        raise StaleInput(
            f"{job.name}: the code changed after it was planned: start the engine again, or `distillery plan`"
        )


def _untouched(job: Job) -> bool:
    """Whether the code is, to the byte, that of the plan: much cheaper to see than what of it a job runs.

    Of this very spec: DVC brings those of other commits too, without a plan.
    """
    noted = artifacts.read_json(job.layout.plan) if job.layout.plan.exists() else {}
    planned = noted.get("specs", {}).get(job.name) == job.sha256 and noted.get("tree") == tree_state()
    return planned and all(map(ours, components(job.stage, job.values)))


def writable(job: Job) -> None:
    """Refuse early and clearly if the results cannot be written here."""
    for folder in (job.layout.artifacts, job.layout.results):
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        if not os.access(existing, os.W_OK):
            raise DistilleryError(f"cannot write below {existing}: make it writable, or run from a writable copy")
