"""Commands about a study as a whole: put it in place, check it, see where it stands, clear it away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from distillery.cli.base import DAILY, PARAMS, Params, StudyName, app
from distillery.errors import DistilleryError


@app.command(rich_help_panel=DAILY)
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to start; it is made if need be.")] = Path(),
    study: Annotated[str, typer.Option(help="The ready-made study to begin with.")] = "digits",
    force: Annotated[bool, typer.Option("--force", help="Replace files that differ, params.yaml too.")] = False,
) -> None:
    """Start a project folder: a ready-made study as params.yaml, and what Snakemake, DVC and git need."""
    from distillery import project

    did = project.start(folder, study, force)
    if did.kept:
        print(f"kept, as they were edited (--force replaces them): {', '.join(did.kept)}")
    print(f"{folder}: {len(did.written)} files written" + (f" ({', '.join(did.written)})" if did.written else ""))
    there = "" if folder.resolve() == Path.cwd() else f"cd {folder}; "
    print(f"next: {there}distillery check; snakemake --cores all; distillery show")


@app.command(rich_help_panel=DAILY)
def study(
    name: StudyName = None,
    force: Annotated[bool, typer.Option(help="Replace a params.yaml that was edited.")] = False,
) -> None:
    """Put a ready-made study in place as params.yaml, or list the ready-made studies."""
    from distillery import project

    known = project.studies()
    if name is None:
        width = max(map(len, known))
        for stem, path in known.items():
            print(f"{stem:{width}}  {_first_comment(path)}")
        return
    chosen = project.study(name)
    edited = PARAMS.exists() and PARAMS.read_bytes() not in {p.read_bytes() for p in known.values()}
    if edited and not force:
        raise DistilleryError(
            "params.yaml was edited and is in no ready-made study: save it elsewhere, or give --force"
        )
    shutil.copyfile(chosen, PARAMS)
    check(PARAMS)
    if not Path("Snakefile").exists():
        print("note: there is no Snakefile here; `distillery init` makes this folder one that the study can be run in")


def _first_comment(path: Path) -> str:
    line = path.read_text().partition("\n")[0]
    return line.removeprefix("#").strip().removeprefix(f"{path.stem}:").strip()


@app.command(rich_help_panel=DAILY)
def check(params: Params = PARAMS) -> None:
    """Check params.yaml, build every cell once without numbers, and say what the study would train and cost."""
    from distillery.cli.cost import lines
    from distillery.pipeline.check import load, rehearse
    from distillery.pipeline.planner import resolve

    study = load(params)
    rehearse(study, str(params))
    runs, cells = study.runs(), len(study.pairs) * len(study.methods)
    print(
        f"{params} is valid: study {study.study!r}, {len(study.teachers)} teacher(s), {cells} cells, {len(runs)} runs"
    )
    for line in lines(study, resolve(study)):
        print(f"  {line}")


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
def clean(
    results: Annotated[bool, typer.Option("--results", help="Remove its tables and figures too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    params: Params = PARAMS,
) -> None:
    """Remove what one study made here: data, teachers, students. Asks first; results stay unless asked for."""
    from distillery.pipeline.check import load
    from distillery.pipeline.internals import LOCKS
    from distillery.pipeline.layout import Layout

    name = load(params).study
    layout = Layout(name)
    found = [folder for folder in (layout.artifacts, *([layout.results] if results else [])) if folder.exists()]
    if not found:
        print(f"study {name!r}: nothing to remove")
        return
    if any(LOCKS.glob("*")):
        raise DistilleryError(
            "Snakemake is running here, or was killed here: wait until it has finished, or remove its lock with "
            "`snakemake --unlock --cores 1`"
        )
    files = [path for folder in found for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    what = f"study {name!r}: {len(files)} files, {size:,.1f} MB in {' and '.join(map(str, found))}"
    if not yes and not typer.confirm(f"Remove {what}?"):
        print("kept")
        return
    for folder in found:
        folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    print(f"removed {what}")
