"""The one command line. Both engines run `distillery run SPEC`; a person names stage and key.

Torch is imported only by the stages that need it: `distillery --help` answers at once.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from distillery.cli import bench, components, results, stages, studies  # commands, in no order: their panels group them
from distillery.cli.base import app
from distillery.errors import DistilleryError
from distillery.records.faults import refused

__all__ = ["app", "bench", "components", "main", "results", "stages", "studies"]


def _print_version(asked: bool) -> None:
    if asked:
        from distillery import __version__

        print(f"distillery {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and stop.")
    ] = False,
) -> None:
    """Declare what comes before a command's name."""


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 1, never a traceback.

    So is what the operating system refuses; a closed pipe is no mistake.
    """
    gc.set_threshold(10_000)  # importing torch makes objects and no garbage: a tenth of what a job's start takes
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without arrows, as Latin-1, prints ? for them
    try:
        if (here := str(Path.cwd())) not in sys.path:  # as `python -m` does: modules of the user's beside params.yaml
            sys.path.append(here)
        try:
            return app(argv, prog_name="distillery")
        except SystemExit:
            _flush()  # while a full disk can still be told
            raise
    except DistilleryError as error:
        said = str(error)
    except BrokenPipeError:
        said = ""
    except OSError as error:
        said = refused(error)
    try:
        _flush()
    except OSError:  # Python tries once more at its end, and would say in its own words that it cannot
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if said:
        print(f"distillery: {said}", file=sys.stderr)
    sys.exit(1)


def _flush() -> None:
    if sys.stdout:  # None where a shell closed it
        sys.stdout.flush()
