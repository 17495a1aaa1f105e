"""`distillery bench`: the benchmark of a training step, from the command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import typer

from distillery.cli.base import DAILY, app
from distillery.errors import DistilleryError

FOLDER = Path("benchmarks")


@app.command(rich_help_panel=DAILY, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context) -> None:
    """Time a training step here, in one run: ours, the bare student's, the classic loop's, the roofline floor.

    Options are those of benchmarks/bench.py: --pairs TEACHER:STUDENT,... --sides float32,bfloat16+compile,... --rounds
    --steps --batch --images --threads --workers (numbers), --busy, --markdown, --into FILE.
    """
    if not (FOLDER / "bench.py").is_file():
        raise DistilleryError(f"there is no folder {FOLDER} here: go to the repository root")
    sys.path.insert(0, str(FOLDER.resolve()))
    importlib.import_module("bench").main(context.args)
