"""The command line itself: what every command shares. Torch is imported only by the stages that need it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Knowledge distillation, reproducibly: a study (params.yaml) goes in, result tables come out.",
)
STAGES, DAILY, KNOW = "Pipeline stages, by hand", "Everyday commands", "What there is"
PARAMS = Path("params.yaml")


def _names(key: str) -> Callable[[typer.Context, str], list[str]]:
    """Complete a name from one block of the study; a study that cannot be read completes nothing."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from distillery.errors import DistilleryError
        from distillery.study.reader import read_params

        try:
            block = read_params(context.params.get("params") or PARAMS).get(key) or []
        except (DistilleryError, OSError):
            return []
        names = map(str, block if isinstance(block, dict | list) else [block])
        return [name for name in names if name.startswith(incomplete)]

    return complete


def _ready_made(incomplete: str) -> list[str]:
    from distillery.project import studies

    return [name for name in studies() if name.startswith(incomplete)]


def _study_file(value: Path) -> Path:
    """A file, or a ready-made study by its name."""
    if not value.exists() and value.name == str(value) and not value.suffix:
        from distillery.project import study

        return study(str(value))
    return value


Params = Annotated[
    Path,
    typer.Option(
        help="The study to work on: a file, or a ready-made study by its name.",
        callback=_study_file,
        autocompletion=_ready_made,
    ),
]
StudyName = Annotated[
    str | None,
    typer.Argument(help="A ready-made study; leave out to list them.", autocompletion=_ready_made),
]
Teacher = Annotated[
    str, typer.Option(help="A name under `teachers:` of params.yaml.", autocompletion=_names("teachers"))
]
Pair = Annotated[str, typer.Option(help="A name under `pairs:` of params.yaml.", autocompletion=_names("pairs"))]
MethodName = Annotated[
    str, typer.Option("--method", help="A name under `methods:` of params.yaml.", autocompletion=_names("methods"))
]
Seed = Annotated[
    str,
    typer.Option(help="A seed (0), or a block of seeds (0-4) trained in one process.", autocompletion=_names("seeds")),
]
