"""Commands about a study as a whole: put it in place, check it, see where it stands, clear it away."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillery.cli.base import DAILY, PARAMS, Params, StudyName, app
from distillery.errors import DistilleryError

if TYPE_CHECKING:
    from distillery.pipeline.layout import Layout


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
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))}; "
    print(f"next: {there}distillery check; snakemake --cores all; distillery show")


@app.command(rich_help_panel=DAILY)
def study(
    name: StudyName = None,
    force: Annotated[bool, typer.Option(help="Replace a params.yaml that was edited.")] = False,
) -> None:
    """Put a ready-made study in place as params.yaml, or list the ready-made studies."""
    from distillery import project
    from distillery.records.files import atomic_path
    from distillery.study.reader import read_params

    known = project.studies()
    if name is None:
        width = max(map(len, known))
        for stem, path in known.items():
            print(f"{stem:{width}}  {_first_comment(path)}")
        return
    chosen = project.study(name)
    wanted = project.content(chosen)
    read_params(chosen)  # what is no text at all replaces nothing
    if PARAMS.is_dir():
        raise DistilleryError("params.yaml is a folder here: move it away")
    if not PARAMS.exists() or PARAMS.read_bytes() != wanted:
        if os.path.lexists(PARAMS) and not force and not _ready_made(PARAMS, known.values()):
            raise DistilleryError(
                "params.yaml was edited and is in no ready-made study: save it elsewhere, or give --force"
            )
        with atomic_path(PARAMS) as temporary:  # a link is replaced, never what it leads to
            temporary.write_bytes(wanted)
    check(PARAMS)
    if not Path("Snakefile").exists():
        print("note: there is no Snakefile here; `distillery init` makes this folder one that the study can be run in")


def _ready_made(params: Path, known: Iterable[Path]) -> bool:
    """Whether it is a copy of a ready-made study: then nothing is lost if it is replaced."""
    return params.exists() and params.read_bytes() in [path.read_bytes() for path in known if path.is_file()]


def _first_comment(path: Path) -> str:
    """What a study says of itself in its first sentence, or why it cannot be read."""
    from distillery.project import content

    try:
        lines = content(path).decode().splitlines()
    except DistilleryError as error:
        return str(error)
    except UnicodeDecodeError:
        return f"{path} cannot be read (it is not UTF-8): save it as UTF-8"
    comment = " ".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines))
    return re.split(r"(?<=\.) (?=[A-Z])", comment.removeprefix(f"{path.stem}:").strip())[0]


@app.command(rich_help_panel=DAILY)
def check(params: Params = PARAMS) -> None:
    """Check params.yaml, build every cell once without numbers, and say what the study would train and cost."""
    from distillery.cli.cost import lines
    from distillery.pipeline import absent
    from distillery.pipeline.check import load, notes, rehearse
    from distillery.pipeline.planner import resolve

    study = load(params)
    rehearse(study, str(params))
    absent.refuse_absent(study, str(params))
    runs, cells = study.runs(), len(study.pairs) * len(study.methods)
    print(
        f"{params} is valid: study {study.study!r}, {len(study.teachers)} teacher(s), {cells} cells, {len(runs)} runs"
    )
    for line in lines(study, resolve(study)):
        print(f"  {line}")
    for note in (*notes(study), *absent.notes(study)):
        print(f"  note: {note}")


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
    results: Annotated[
        bool, typer.Option("--results", help="Remove its tables and figures too; what else is in results/STUDY stays.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    params: Params = PARAMS,
) -> None:
    """Remove what one study made here: data, teachers, students. Asks first; results stay unless asked for."""
    from distillery.pipeline.check import load
    from distillery.pipeline.internals import LOCKS
    from distillery.pipeline.layout import Layout

    name = load(params).study
    layout = Layout(name)
    made = [layout.artifacts] + ([*layout.result_files().values(), layout.figures] if results else [])
    found = [path for path in made if path.exists()]
    if not found:
        print(f"study {name!r}: nothing to remove")
        return
    if any(LOCKS.glob("*")):
        raise DistilleryError(
            "Snakemake is running here, or was killed here: wait until it has finished, or remove its lock with "
            "`snakemake --unlock --cores 1`"
        )
    if busy := _at_work(layout):
        raise DistilleryError(f"{busy} is running: wait until it has finished, or stop it (`distillery status`)")
    files = [path for each in found for path in (each, *each.rglob("*")) if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    folders = dict.fromkeys(path if path == layout.artifacts else layout.results for path in found)
    places = [f"{folder}, a link to {folder.resolve()}" if folder.is_symlink() else str(folder) for folder in folders]
    what = f"study {name!r}: {len(files)} files, {size:,.1f} MB in {' and '.join(places)}"
    if not yes and not typer.confirm(f"Remove {what}?"):
        print("kept")
        return
    for path in found:
        shutil.rmtree(path.resolve()) if path.is_dir() else path.unlink()
        if path.is_symlink():
            path.unlink()
    with suppress(OSError):  # what no job made stays: runs that were kept, notes of the user's
        layout.results.rmdir()
    print(f"removed {what}")


def _at_work(layout: Layout) -> str:
    """The name of a job of this study that somebody runs, engine or not; "" if there is none.

    First by the plan as it was last written. A lock in the folder that is no planned job's, as after an edit of
    params.yaml, is named by the file that is being made.
    """
    from distillery.pipeline.job import Plan
    from distillery.status.locks import holder
    from distillery.status.states import RUNNING, look

    with suppress(DistilleryError):  # never planned
        if running := look(Plan.read(layout.study)).of(RUNNING):
            return f"the job {running[0].job.name}"
    for lock in layout.artifacts.rglob(".*.lock"):
        output = lock.with_name(lock.name.removeprefix(".").removesuffix(".lock"))
        if (held := holder(output)) and held.alive:
            return f"the job that makes {output}"
    return ""
