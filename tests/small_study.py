"""A digits study that is trained in seconds, in this process, by the stages themselves."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT

from distillery.pipeline.current import Judge
from distillery.pipeline.job import STAGES, Plan
from distillery.pipeline.planner import current
from distillery.pipeline.work import Work

STUDY: dict[str, Any] = {
    "study": "small",
    "data": {"source": "digits", "test_fraction": 0.5},
    "recipe": {
        "epochs": 5,
        "batch_size": 32,
        "lr": 0.05,
        "milestones": [4],
        "augmentation": {"pad": 1, "flip": False},
        "channels_last": True,
    },
    "teachers": {"t": {"architecture": "resnet8_w8"}},
    "pairs": {"t-s": {"teacher": "t", "student": "resnet8_w4"}},
    "methods": {"ce": {"objective": "ce", "label": "alone"}, "kd": {"objective": "kd", "label": "KD"}},
    "seeds": [0],
    "cache": {"pooled": True},
    "tables": {"baseline": "kd"},
}


def digits() -> dict[str, Any]:
    """The ready-made study of digits, but for its `instructions`: a test's process has loaded torch already."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "workflow" / "studies" / "digits.yaml").read_text())
    return content | {"instructions": "native"}


def write(params: dict[str, Any], path: str = "params.yaml") -> None:
    """Put a study in place in the current folder."""
    Path(path).write_text(yaml.safe_dump(params, sort_keys=False))


def make(path: str = "params.yaml", tables: bool = False, stages: Collection[str] = STAGES) -> list[str]:
    """Run the jobs of the study that are due, of all or some stages; return their names.

    The tables are left out unless asked for.
    """
    _, plan = current(Path(path), write=True)
    made = []
    for job in plan:
        if job.stage in stages and (job.stage != "tables" or tables) and not Judge(plan).verdict(job).current:
            importlib.import_module(f"distillery.stages.{job.stage}").run(Work(job, plan.settings))
            made.append(job.name)
    return made


def due(path: str = "params.yaml") -> list[str]:
    """Names of the jobs that are due, but for the tables."""
    plan: Plan = current(Path(path), write=True)[1]
    return [job.name for job in Judge(plan).due() if job.stage != "tables"]
