"""Commands that run the stages: by hand, or from a spec as the engines do."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillery import settings
from distillery.cli.base import PARAMS, STAGES, MethodName, Pair, Params, Seed, Teacher, app
from distillery.errors import DistilleryError

if TYPE_CHECKING:
    from distillery.pipeline.job import Job


def _stage(name: str, params: Path, **keys: str) -> None:
    """Plan the study as it is now, run one of its jobs, and say what came of it."""
    from distillery.cli.logged import outcome
    from distillery.errors.words import nearest
    from distillery.pipeline.check import load
    from distillery.pipeline.planner import current
    from distillery.records.environment import keep_to
    from distillery.study.model import expand_seeds

    keep_to(load(params).instructions)  # before planning, which may load torch
    study, plan = current(params, write=True)
    for key, value in keys.items():
        known = [str(s) for s in study.seeds] if key == "seed" else list(getattr(study, f"{key}s"))
        blocks = [block for block in known if key == "seed" and value.isdigit() and int(value) in expand_seeds(block)]
        if value not in known and blocks:
            raise DistilleryError(f"--seed {value} is one of a block that is trained together: give --seed {blocks[0]}")
        if value not in known:
            raise DistilleryError(f"--{key} {value}: not in {params}: {nearest(value, known)}")
    job = plan.job(name, **keys)
    run(job.path)
    print(f"{job.name}: {outcome(job)}")


@app.command(rich_help_panel=STAGES)
def data(params: Params = PARAMS) -> None:
    """Download or read the data set and write its canonical arrays."""
    _stage("data", params)


@app.command(rich_help_panel=STAGES)
def teacher(teacher: Teacher, params: Params = PARAMS) -> None:
    """Train a teacher by the recipe, or fetch, verify and convert a released one."""
    _stage("teacher", params, teacher=teacher)


@app.command(rich_help_panel=STAGES)
def cache(teacher: Teacher, params: Params = PARAMS) -> None:
    """Build a teacher's view table: its outputs for every view of every training image."""
    _stage("cache", params, teacher=teacher)


@app.command(rich_help_panel=STAGES)
def pair(pair: Pair, params: Params = PARAMS) -> None:
    """Record which teacher weights and which view table a pair uses."""
    _stage("pair", params, pair=pair)


@app.command(rich_help_panel=STAGES)
def distill(pair: Pair, method: MethodName, seed: Seed, params: Params = PARAMS) -> None:
    """Train the students of one pair and method."""
    _stage("distill", params, pair=pair, method=method, seed=seed)


@app.command(rich_help_panel=STAGES)
def evaluate(pair: Pair, method: MethodName, seed: Seed, params: Params = PARAMS) -> None:
    """Measure trained students on the test set."""
    _stage("evaluate", params, pair=pair, method=method, seed=seed)


@app.command(rich_help_panel=STAGES)
def tables(params: Params = PARAMS) -> None:
    """Aggregate all metrics into the result tables."""
    _stage("tables", params)


@app.command(rich_help_panel=STAGES)
def plan(params: Params = PARAMS) -> None:
    """Write down what every job of the study is made from (engines do this by themselves)."""
    from distillery.pipeline.planner import current

    study, found = current(params, write=True)
    print(f"{study.study}: {len(found)} jobs planned in {found.layout.specs}")


@app.command(rich_help_panel=STAGES)
def run(
    spec: Annotated[Path, typer.Argument(help="A file below artifacts/STUDY/specs.")],
    log: Annotated[Path | None, typer.Option(help="Write there what the job prints; here one line is left.")] = None,
) -> None:
    """Run one job from its spec: what Snakemake and DVC call."""
    from distillery.pipeline.job import Job

    job = Job.read(spec)
    if log is None:
        _work(job)
    else:
        from distillery.cli.logged import logged

        logged(job, log, lambda: _work(job))


def _work(job: Job) -> Path | None:
    from distillery.pipeline.gpus import explained, gpu_for
    from distillery.pipeline.shared import take_over
    from distillery.pipeline.work import Work, writable
    from distillery.records.environment import keep_to
    from distillery.records.io import read_json

    settings.check()
    keep_to(job.values.get("instructions", "native"))
    writable(job)
    work = Work(job, read_json(job.layout.settings))
    if settings.share() and (found := take_over(work)):
        print(f"{job.name}: the same as {found}, which another study made here: copied", flush=True)
        return found
    with gpu_for(job), explained():
        importlib.import_module(f"distillery.stages.{job.stage}").run(work)
    return None
