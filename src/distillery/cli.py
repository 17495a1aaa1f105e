"""The one command line: `distillery STAGE ...`. Both engines run exactly these commands, and so may a person.

Torch is imported only by the stages that need it: `distillery --help` and `distillery methods` answer at once.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from distillery import settings
from distillery.records.io import DistilleryError
from distillery.study.model import Study, expand_seeds

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Knowledge distillation, reproducibly: a study (params.yaml) goes in, result tables come out.",
)
STAGES, DAILY = "Pipeline stages (run by Snakemake and DVC, or by hand)", "Everyday commands"

Params = Annotated[Path, typer.Option(help="The study to work on.", show_default=True)]
Teacher = Annotated[str, typer.Option(help="A name under `teachers:` of params.yaml.")]
Pair = Annotated[str, typer.Option(help="A name under `pairs:` of params.yaml.")]
MethodName = Annotated[str, typer.Option("--method", help="A name under `methods:` of params.yaml.")]
Seed = Annotated[str, typer.Option(help="A seed (0), or a block of seeds (0-4) trained in one process.")]
PARAMS = Path("params.yaml")


def _stage(name: str, params: Path, **keys: str) -> None:
    """Check the study and the names given, then run a stage: `distillery.stages.NAME.run(study, params, **keys)`."""
    from distillery.pipeline.layout import Layout
    from distillery.records.job import prepared
    from distillery.study.check import nearest

    settings.check()
    study = Study.load(params)
    for key, value in keys.items():
        if key == "seed":
            expand_seeds(value)
            continue
        known = list(getattr(study, f"{key}s"))
        if value not in known:
            raise DistilleryError(f"--{key} {value}: not in {params}: {nearest(value, known)}")
    prepared(study, Layout(study.study))
    importlib.import_module(f"distillery.stages.{name}").run(study, params, **keys)


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
    """Record which teacher weights and which table a pair uses."""
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


@app.command(rich_help_panel=DAILY)
def show(params: Params = PARAMS) -> None:
    """Print the study's result table."""
    from distillery.report.terminal import show as print_tables

    print_tables(Study.load(params))


@app.command(rich_help_panel=DAILY)
def status(
    everything: Annotated[bool, typer.Option("--all", help="List all running and failed jobs.")] = False,
    params: Params = PARAMS,
) -> None:
    """Say at a glance what is done, running, waiting or failed, and how long the rest will take."""
    from distillery.status.show import show as print_status

    print_status(Study.load(params), params, everything)


@app.command(rich_help_panel=DAILY)
def compare(
    everything: Annotated[bool, typer.Option("--all", help="Also list what cannot be compared, and why.")] = False,
    params: Params = PARAMS,
) -> None:
    """Print the reproduction ledger: the study's cells against published numbers."""
    from distillery.report.terminal import compare as print_ledger

    print_ledger(Study.load(params), everything)


@app.command(rich_help_panel=DAILY)
def record() -> None:
    """After Snakemake: check that every output is current, then record all of them in dvc.lock and the DVC cache."""
    from distillery.pipeline import sync as versioning

    versioning.record()


@app.command(rich_help_panel=DAILY)
def adopt() -> None:
    """After `dvc pull` or `dvc repro`: mark the files DVC restored as up to date for Snakemake, if they are."""
    from distillery.pipeline import sync as versioning

    versioning.adopt()


@app.command(rich_help_panel=DAILY)
def check(params: Params = PARAMS) -> None:
    """Check params.yaml and say what the study would train."""
    study = Study.load(params)
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
    from distillery.study.check import nearest

    folder = Path("workflow/studies")
    known = {p.stem: p for p in sorted(folder.glob("*.yaml"))}
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
    """List every method with its source, what it needs, its parameters and their defaults."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from distillery.objectives import signatures

    for title, found in (("Objectives", signatures.objectives()), ("Plug-ins", signatures.plugins())):
        table = Table("name", "what and where from", "needs", "parameters and defaults", title=title, show_lines=True)
        for name, signature in found.items():
            hyper = "\n".join(f"{k} = {default!r}" for k, (_, default) in signature.hyper.items())
            needs = ", ".join(sorted(signature.needs)) if signature.kind == "Objective" else ""
            table.add_row(*map(Text, (name, signature.doc.partition("\n\n")[0], needs, hyper)))
        Console().print(table)


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 1, never a traceback."""
    try:
        return app(argv, prog_name="distillery")
    except DistilleryError as error:
        print(f"distillery: {error}", file=sys.stderr)
        sys.exit(1)
