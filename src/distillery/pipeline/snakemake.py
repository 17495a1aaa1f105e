"""What the Snakefile asks: which jobs there are, what they read, and which of them are due.

Snakemake goes by the times of files and by its own notes. So that it comes to the judge's verdicts, and to no others,
the inputs of a job that is current are "ancient" (their times do not count), and a job that is due reads one more file,
which is made anew at every start and so is younger than any output.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from snakemake.io import ancient

from distillery.pipeline.current import Judge
from distillery.pipeline.job import STAGES, Job, Plan
from distillery.pipeline.layout import Layout
from distillery.pipeline.planner import current
from distillery.pipeline.work import PLANNED
from distillery.records.files import DistilleryError, atomic_path

PARAMS = Path("params.yaml")
STUDY = "DISTILLERY_STUDY"  # what the Snakemake that submits a job tells the one inside it


class Jobs:
    """The jobs of a study.

    Args:
        plans: whether this process plans: the one that a person started. Those that it starts on other nodes read the
            plan that it wrote, and refuse a job whose spec was changed since (`pipeline.work`).
        params: the study's file.
    """

    def __init__(self, plans: bool, params: Path = PARAMS) -> None:
        if plans:
            study, self.plan = current(params, write=True)
            self.due = {job.name for job in Judge(self.plan).due()}
            with atomic_path(self.layout.due) as temporary:
                temporary.write_text(f"{uuid.uuid4()}\n")  # new content too: Snakemake compares checksums
            os.environ |= {PLANNED: str(self.layout.due.stat().st_mtime_ns), STUDY: study.study}
            self.only_fetched = all(t.source != "train" and t.fallback == "none" for t in study.teachers.values())
        else:
            if STUDY not in os.environ:
                raise DistilleryError(
                    f"this job does not see {STUDY}, nor what else the Snakemake that submitted it had in its "
                    "environment: have Slurm pass that on (`unset SBATCH_EXPORT SLURM_EXPORT_ENV`, no `--export=NONE`)"
                )
            self.plan = Plan.read(os.environ[STUDY])  # params.yaml may be in the middle of an edit
            self.due = {job.name for job in self.plan}
            self.only_fetched = False

    @property
    def layout(self) -> Layout:
        return self.plan.layout

    def wildcard_constraints(self) -> dict[str, str]:
        """A regular expression for each wildcard: the names that the study has."""
        found: dict[str, dict[str, None]] = {key: {} for keys in STAGES.values() for key in keys}
        for job in self.plan:
            for key, value in job.wildcards.items():
                found[key][value] = None
        return {key: "|".join(values) or "none" for key, values in found.items()}

    def outputs(self) -> list[str]:
        """Every output of the study: one that was deleted is made again, and what depends on it."""
        return [str(path) for job in self.plan for path in job.outputs.values()]

    def inputs(self, stage: str) -> Callable[..., dict[str, Any]]:
        """A function of the wildcards that returns the inputs of a job by name."""
        return partial(self._inputs, stage)

    def _inputs(self, stage: str, wildcards: Any) -> dict[str, Any]:
        job = self.plan.job(stage, **{key: getattr(wildcards, key) for key in STAGES[stage]})
        read = {"spec": str(job.path), "read": _by_name(job), "due": str(self.layout.due)}
        if job.name in self.due:
            return read
        return {"spec": ancient(read["spec"]), "read": [ancient(p) for p in _by_name(job)], "due": ancient(read["due"])}


def _by_name(job: Job) -> list[str]:
    return [str(path) for path in job.reads.values()]
