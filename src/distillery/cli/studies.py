"""Commands about a study as a whole: put it in place, check it, see where it stands, clear it away."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from distillery.cli.base import DAILY, PARAMS, Params, app
from distillery.errors import DistilleryError


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
def status(
    everything: Annotated[bool, typer.Option("--all", help="List all running and failed jobs.")] = False,
    params: Params = PARAMS,
) -> None:
    """Say at a glance what is done, running, waiting or failed, and how long the rest will take."""
    from distillery.pipeline.planner import current
    from distillery.status.show import show as print_status

    print_status(*current(params), everything)
