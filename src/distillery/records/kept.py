"""Finished jobs that return at once when their group is repeated because a job beside them failed.

Snakemake deletes the outputs of all members of a group when one of them fails. Where DISTILLERY_KEEP is set (in Slurm
jobs that several runs share), a job leaves second names of its outputs at an undeclared place; nothing is copied. The
engine clears the place when the study is done, so that a later, forced run really trains.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts


def agrees(made: Path, record: dict[str, Any]) -> bool:
    """Whether the record in the file `made` is that of this very job: same code, parameters, inputs, machine."""
    return made.exists() and record.items() <= artifacts.read_json(made).items()


def restore(layout: Layout, record: dict[str, Any], output: Path, made: Path) -> bool:
    """Put back what was kept of a job, if the record kept of `made` agrees."""
    if not layout.kept(output).exists() or not agrees(layout.kept(made), record):
        return False
    for path in (output, made):
        _link(layout.kept(path), path)
        os.utime(path)
    print(f"{output}: kept from the same job, which was finished before", flush=True)
    return True


def keep(layout: Layout, output: Path, made: Path) -> None:
    """Keep a finished job. Its record `made` goes first and comes last: nothing is restored without it."""
    if os.environ.get("DISTILLERY_KEEP"):
        layout.kept(made).unlink(missing_ok=True)
        for path in (output, made):
            _link(path, layout.kept(path))


def _link(source: Path, target: Path) -> None:
    with artifacts.atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # some shared file systems have no hard links
            shutil.copyfile(source, temporary)
