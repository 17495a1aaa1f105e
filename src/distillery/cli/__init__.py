"""The one command line. Both engines run `distillery run SPEC`; a person names stage and key.

Torch is imported only by the stages that need it: `distillery --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from distillery.cli import components, results, stages, studies  # commands, in no order: their panels group them
from distillery.cli.base import app
from distillery.errors import DistilleryError

__all__ = ["app", "components", "main", "results", "stages", "studies"]


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
    """Run the command line; a user's mistake is one sentence on stderr and exit code 1, never a traceback."""
    try:
        return app(argv, prog_name="distillery")
    except DistilleryError as error:
        print(f"distillery: {error}", file=sys.stderr)
        sys.exit(1)
