"""The one command line. Both engines run `distillery run SPEC`; a person names stage and key.

Torch is imported only by the stages that need it: `distillery --help` answers at once.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from distillery import __version__, settings
from distillery.bench import bench
from distillery.errors import DistilleryError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Knowledge distillation, reproducibly: a study (params.yaml) goes in, result tables come out.",
)
STAGES, DAILY = "Pipeline stages, by hand", "Everyday commands"

Params = Annotated[Path, typer.Option(help="The study to work on.", show_default=True)]
Teacher = Annotated[str, typer.Option(help="A name under `teachers:` of params.yaml.")]
Pair = Annotated[str, typer.Option(help="A name under `pairs:` of params.yaml.")]
MethodName = Annotated[str, typer.Option("--method", help="A name under `methods:` of params.yaml.")]
Seed = Annotated[str, typer.Option(help="A seed (0), or a block of seeds (0-4) trained in one process.")]
PARAMS = Path("params.yaml")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"distillery {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and stop.")
    ] = False,
) -> None:
    """Declare what comes before a command's name."""


def _stage(name: str, params: Path, **keys: str) -> None:
    """Plan the study as it is now, then run one of its jobs."""
    from distillery.pipeline.planner import current
    from distillery.registry import nearest

    study, plan = current(params, write=True)
    for key, value in keys.items():
        known = [str(s) for s in study.seeds] if key == "seed" else list(getattr(study, f"{key}s"))
        if value not in known:
            raise DistilleryError(f"--{key} {value}: not in {params}: {nearest(value, known)}")
    run(plan.job(name, **keys).path)


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
def run(spec: Annotated[Path, typer.Argument(help="A file below artifacts/STUDY/specs.")]) -> None:
    """Run one job from its spec: what Snakemake and DVC call."""
    from distillery.pipeline.job import Job
    from distillery.pipeline.work import Work, writable
    from distillery.records.io import read_json

    settings.check()
    job = Job.read(spec)
    writable(job)
    work = Work(job, read_json(job.layout.settings))
    importlib.import_module(f"distillery.stages.{job.stage}").run(work)


@app.command(rich_help_panel=DAILY)
def show(params: Params = PARAMS) -> None:
    """Print the study's result table."""
    from distillery.pipeline.current import fault_of_tables
    from distillery.pipeline.planner import current
    from distillery.report.terminal import show as print_tables

    study, found = current(params)
    print_tables(study, fault_of_tables(found))


@app.command(rich_help_panel=DAILY)
def status(
    everything: Annotated[bool, typer.Option("--all", help="List all running and failed jobs.")] = False,
    params: Params = PARAMS,
) -> None:
    """Say at a glance what is done, running, waiting or failed, and how long the rest will take."""
    from distillery.pipeline.planner import current
    from distillery.status.show import show as print_status

    print_status(*current(params), everything)


@app.command(rich_help_panel=DAILY)
def compare(
    everything: Annotated[bool, typer.Option("--all", help="Also list what cannot be compared, and why.")] = False,
    params: Params = PARAMS,
) -> None:
    """Print the reproduction ledger: the study's cells against published numbers."""
    from distillery.pipeline.current import fault_of_tables
    from distillery.pipeline.planner import current
    from distillery.report.terminal import compare as print_ledger

    study, found = current(params)
    print_ledger(study, fault_of_tables(found), everything)


@app.command(rich_help_panel=DAILY)
def record() -> None:
    """After Snakemake: check that every output is current, then record all of them in dvc.lock and the DVC cache."""
    from distillery.pipeline import sync

    sync.record()


@app.command(rich_help_panel=DAILY)
def export(
    pair: Pair,
    method: MethodName,
    seed: Annotated[int, typer.Option(help="The seed of the student.")],
    to: Annotated[Path | None, typer.Option(help="The folder [default: exports/STUDY-PAIR-METHOD-SEED].")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx.")] = False,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Also write model.pt2 (torch.export).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an exported student in that folder.")] = False,
    params: Params = PARAMS,
) -> None:
    """Write a student as a folder that stands alone: weights, configuration, model card; ONNX if asked for."""
    from distillery.students.export import export as write

    folder, checked = write(pair, method, seed, to, onnx, torch_export, force, params)
    print(f"{folder}: " + ", ".join(f"{name} {top1:.2f} %" for name, top1 in checked.items()) + " on the test set")


@app.command(rich_help_panel=DAILY)
def check(params: Params = PARAMS) -> None:
    """Check params.yaml, build every cell once without numbers, and say what the study would train."""
    from distillery.pipeline.check import load, rehearse

    study = load(params)
    rehearse(study, str(params))
    runs, cells = study.runs(), len(study.pairs) * len(study.methods)
    print(
        f"{params} is valid: study {study.study!r}, {len(study.teachers)} teacher(s), {cells} cells, {len(runs)} runs"
    )


@app.command(rich_help_panel=DAILY)
def study(
    name: Annotated[str | None, typer.Argument(help="A study under workflow/studies/; leave out to list them.")] = None,
    force: Annotated[bool, typer.Option(help="Replace a params.yaml that was edited.")] = False,
) -> None:
    """Put a ready-made study in place as params.yaml, or list the ready-made studies."""
    from distillery.registry import nearest

    folder = Path("workflow/studies")
    known = {p.stem: p for p in sorted(folder.glob("*.yaml"))}
    if not known:
        raise DistilleryError(f"there is no folder {folder} with studies here: go to the repository root")
    if name is None:
        for stem, path in known.items():
            print(f"{stem:24} {_first_comment(path)}")
        return
    if name not in known:
        raise DistilleryError(f"no study {name!r} in {folder}: {nearest(name, list(known))}")
    edited = PARAMS.exists() and PARAMS.read_bytes() not in {p.read_bytes() for p in known.values()}
    if edited and not force:
        raise DistilleryError(
            "params.yaml was edited and is in no ready-made study: save it elsewhere, or give --force"
        )
    shutil.copyfile(known[name], PARAMS)
    check(PARAMS)


def _first_comment(path: Path) -> str:
    line = path.read_text().partition("\n")[0]
    return line.removeprefix("#").strip().removeprefix(f"{path.stem}:").strip()


@app.command(rich_help_panel=DAILY)
def methods() -> None:
    """List every method, plug-in and part of a recipe: its source, what it needs, its parameters and defaults."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from distillery.objectives import OBJECTIVES
    from distillery.objectives.plugins import PLUGINS
    from distillery.recipe import AUGMENTATIONS, OPTIMIZERS, SCHEDULES

    parts = {"Objectives": OBJECTIVES, "Plug-ins": PLUGINS, "Optimizers": OPTIMIZERS, "Schedules": SCHEDULES}
    parts["Augmentations"] = AUGMENTATIONS
    for title, registry in parts.items():
        table = Table("name", "what and where from", "needs", "parameters and defaults", title=title, show_lines=True)
        for name, component in registry.items():
            kind = component.load()
            doc = (sys.modules[kind.__module__].__doc__ or "").partition("\n\n")[0]
            keys = "\n".join(f"{key} = {field.default!r}" for key, field in kind.Config.model_fields.items())
            table.add_row(*map(Text, (name, doc, ", ".join(sorted(getattr(kind, "needs", ()))), keys)))
        Console().print(table)


app.command(rich_help_panel=DAILY, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bench)


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 1, never a traceback."""
    try:
        return app(argv, prog_name="distillery")
    except DistilleryError as error:
        print(f"distillery: {error}", file=sys.stderr)
        sys.exit(1)
