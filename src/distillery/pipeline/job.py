"""A job: one stage, one key, and everything that decides its outputs. Written as a small file, its spec.

Both engines compare the content of these files; records carry them; a stage runs from its spec and from nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distillery.pipeline.layout import Layout
from distillery.records.io import DistilleryError, read_json, write_json

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)
VERSION = 1

# The wildcards of each stage, in the order in which Snakemake meets them in the paths of the stage's outputs.
STAGES: dict[str, tuple[str, ...]] = {
    "data": (),
    "teacher": ("teacher",),
    "cache": ("teacher",),
    "pair": ("pair",),
    "distill": ("pair", "method", "seed"),
    "evaluate": ("pair", "method", "seed"),
    "tables": (),
}


@dataclass(frozen=True, eq=False)
class Job:
    """One line that `snakemake -n` or `dvc repro` would run.

    Attributes:
        keys: the values of its wildcards, in the order of `STAGES`.
        values: the effective parameters, defaults filled in; no label, no budget, nothing that changes no output.
        code: fingerprint of the code that it runs.
        reads: outputs of other jobs, by what they are to it.
        outputs: what it makes. "record" names the JSON file that says from what; the first one is locked meanwhile.
        seeds: its runs, in this order; empty if it has to do with no student.
    """

    study: str
    stage: str
    keys: tuple[str, ...]
    values: dict[str, Any]
    code: str
    reads: dict[str, Path]
    outputs: dict[str, Path]
    seeds: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return " ".join((self.stage, *self.keys))

    @property
    def wildcards(self) -> dict[str, str]:
        return dict(zip(STAGES[self.stage], self.keys, strict=True))

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.study)

    @property
    def path(self) -> Path:
        """Where its spec lies."""
        return self.layout.spec(self.stage, *self.keys)

    @property
    def record(self) -> Path:
        return self.outputs["record"]

    @property
    def locked(self) -> Path:
        """The output whose lock is held while it is made."""
        return next(iter(self.outputs.values()))

    @property
    def log(self) -> Path:
        return self.layout.log(self.stage, *self.keys)

    @property
    def provenance(self) -> Path:
        return self.layout.provenance(self.locked)

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """Where it would continue after a kill."""
        if self.stage == "distill":
            return tuple(self.layout.checkpoint(*self.keys[:2], str(seed)) for seed in self.seeds)
        return (self.layout.checkpoint("teachers", *self.keys),) if self.stage == "teacher" else ()

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The content of its file: all of this, as JSON has it. Order counts: of methods in a table, of partners."""
        content = {
            "version": VERSION,
            "study": self.study,
            "stage": self.stage,
            "keys": self.wildcards,
            "seeds": self.seeds,
            "values": self.values,
            "code": self.code,
            "reads": {name: str(path) for name, path in self.reads.items()},
            "outputs": {name: str(path) for name, path in self.outputs.items()},
        }
        found: dict[str, Any] = json.loads(json.dumps(content))
        return found

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(text_of(self.spec).encode()).hexdigest()

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Job:
        """Undo `spec`."""
        return cls(
            spec["study"],
            spec["stage"],
            tuple(spec["keys"][key] for key in STAGES[spec["stage"]]),
            spec["values"],
            spec["code"],
            {name: Path(path) for name, path in spec["reads"].items()},
            {name: Path(path) for name, path in spec["outputs"].items()},
            tuple(spec["seeds"]),
        )

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read a spec file. Raises DistilleryError if there is none, or if it is of another version."""
        if not path.exists():
            raise DistilleryError(
                f"there is no {path}: the study does not have this job any more, or `distillery plan` has not been run"
            )
        spec = read_json(path)
        try:
            if spec["version"] != VERSION:
                raise ValueError
            return cls.from_spec(spec)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DistilleryError(f"{path} was written by another version of Distillery: `distillery plan`") from None

    def write(self) -> None:
        """Write its spec."""
        _write(self.path, self.spec)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, unless just this lies there: engines see a new file only where something changed.

    The file is not synced, which takes some ms for each of thousands of specs: the next plan writes a damaged one anew.
    """
    with suppress(DistilleryError):  # not there, or damaged
        if text_of(read_json(path)) == text_of(content):
            return
    write_json(path, content, sort=False, sync=False)


def text_of(spec: dict[str, Any]) -> str:
    """A spec as text: equal for equal specs only."""
    return json.dumps(spec)


class Plan:
    """All jobs of a study, each after those that it needs."""

    def __init__(self, jobs: list[Job], settings: dict[str, Any]) -> None:
        self.jobs, self.settings = jobs, settings
        self._named = {job.name: job for job in jobs}
        self._makers = {path: job for job in jobs for path in job.outputs.values()}

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def layout(self) -> Layout:
        return self.jobs[0].layout

    def job(self, stage: str, **wildcards: str) -> Job:
        """Return one job. Raises DistilleryError if the study has no such job."""
        name = " ".join((stage, *(wildcards[key] for key in STAGES[stage])))
        if name not in self._named:
            raise DistilleryError(f"the study has no job {name!r}; `distillery status` lists its stages")
        return self._named[name]

    def needs(self, job: Job) -> list[Job]:
        """The jobs whose outputs a job reads."""
        return list(dict.fromkeys(self._makers[path] for path in job.reads.values() if path in self._makers))

    def specs(self) -> dict[str, str]:
        """Hash of every job's spec, by name."""
        return {job.name: job.sha256 for job in self}

    def write(self) -> None:
        """Write the specs that changed, and remove those of jobs that the study does not have any more."""
        for job in self:
            job.write()
        kept = {job.path for job in self}
        for path in self.layout.specs.rglob("*.json"):
            if path not in kept:
                path.unlink()
        _write(self.layout.settings, self.settings)

    @classmethod
    def read(cls, study: str) -> Plan:
        """Read the plan of a study as it was last written."""
        layout = Layout(study)
        jobs = [Job.read(path) for path in layout.specs.rglob("*.json")]
        if not jobs:
            raise DistilleryError(f"study {study!r} was not planned here yet: `distillery plan`")
        jobs.sort(key=lambda job: (list(STAGES).index(job.stage), job.keys))
        return cls(jobs, read_json(layout.settings))
