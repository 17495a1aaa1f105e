"""`distillery bench`: the benchmark of a training step, from the command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import typer

from distillery.errors import DistilleryError

DECIDES_RESULTS = False  # it times steps and keeps none
FOLDER = Path("benchmarks")


def bench(context: typer.Context) -> None:
    """Time a training step here, in one run: ours, the bare student's, the classic loop's, the roofline floor.

    Options are those of benchmarks/bench.py: --pairs, --sides, --rounds, --steps, --threads, --busy, --markdown, --into
    """
    if not (FOLDER / "bench.py").is_file():
        raise DistilleryError(f"there is no folder {FOLDER} here: go to the repository root")
    sys.path.insert(0, str(FOLDER.resolve()))
    importlib.import_module("bench").main(context.args)
