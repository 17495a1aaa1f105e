"""What Snakemake, its Slurm plugin and DVC do not promise: the names of their own files, in one place.

Seen in snakemake 9.27 and plugin 2.8. pyproject.toml admits no other major versions; where one is installed all the
same, `unknown` says so, and nobody asks further.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distillery.records.leaving import ending, silence_a_closed_terminal

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)
SUPPORTED = {"snakemake": "9", "snakemake-executor-plugin-slurm": "2"}  # major versions

TIMESTAMP = ".snakemake_timestamp"  # in an output that is a folder
LOCKS = Path(".snakemake/locks")  # a file for each set of paths while Snakemake runs here, or after it was killed
MARKERS = Path(".snakemake/incomplete")  # a file for each output in the making
RUNS = Path(".snakemake/log")  # a log for each time that Snakemake was started
SLURM_LOGS = Path(".snakemake/slurm_logs")  # of the plugin: rule_NAME/WILDCARDS/NUMBER.log
LOCKED = (
    "distillery: another Snakemake is at work in this folder, or was killed here: if none runs, `snakemake --unlock`, "
    "then the same command"
)
WAITING = "distillery: stopping: the jobs save their state first, and then this ends"
COMMENT = "rule_"  # how the comments begin that the plugin gives its Slurm jobs


def unknown() -> str:
    """Say in one clause which program is none that this module knows; "" if all are."""
    for name, major in SUPPORTED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            return f"{name} is not installed"
        if found.partition(".")[0] != major:
            return f"{name} is {found}, and only {major}.x is known here"
    return ""


def is_submitted(workflow: Any) -> bool:
    """Whether this Snakemake was started by another one, to run one job on another node."""
    return bool(workflow.remote_exec)


def is_silent(workflow: Any) -> bool:
    """Whether this Snakemake was told `--quiet all`, and so prints no error either."""
    return "ALL" in {getattr(level, "name", "") for level in workflow.output_settings.quiet or ()}


def is_locked(workflow: Any) -> bool:
    """Whether the Snakemake that a person started finds the locks of another one, which may be alive or not."""
    return bool(workflow.is_main_process) and LOCKS.is_dir() and any(LOCKS.iterdir())


def obey_signals() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal end this Snakemake and its jobs, which save their state; `onstart`.

    By itself it waits for jobs that the signal did not reach, which may take days: it is handed on. And a second one,
    while they save, would end it in the midst of leaving: it is told what is waited for. Snakemake sets a handler of
    its own before `onstart`.
    """
    leaving = False

    def stop(number: int, frame: object) -> None:
        nonlocal leaving
        silence_a_closed_terminal(number)
        if leaving:
            os.write(2, f"{WAITING}\n".encode())
            return
        leaving = True
        for process in _descendants(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, number if number == signal.SIGHUP else signal.SIGTERM)
        raise KeyboardInterrupt

    for kind in ending():
        signal.signal(kind, stop)


class Refusals(logging.Handler):
    """What Slurm says of jobs that it refuses. Snakemake says it where it lists jobs, which is quiet by default."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, None] = {}  # a set in order

    def emit(self, record: logging.LogRecord) -> None:
        said = getattr(record, "rule_msg", None) or record.getMessage()
        if found := re.search(r"sbatch failed.*?error message was '(.*?)'\.\n", said, re.DOTALL):
            last = found[1].strip().splitlines()[-1:] or ["no reason given"]
            self.reasons[last[0].removeprefix("sbatch: ").removeprefix("error: ")] = None


def _descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that they have; none where there is no /proc."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *_descendants(child)]
    return found


@dataclass(frozen=True)
class Run:
    """One start of Snakemake: the name of its Slurm jobs, their numbers, and the studies that its log names."""

    name: str
    numbers: frozenset[str]
    studies: frozenset[str]


def runs() -> list[Run]:
    """All starts of Snakemake here that submitted Slurm jobs, by their logs."""
    found = []
    for path in RUNS.glob("*.log"):
        with suppress(OSError):
            text = path.read_text(errors="replace")
            if name := re.search(r"SLURM run ID: (\S+)", text):
                numbers = re.findall(r"SLURM job ?(?:id|ID) (\d+)", text)
                studies = re.findall(r"\bartifacts/([\w-]+)/", text)
                found.append(Run(name[1], frozenset(numbers), frozenset(studies)))
    return found


def comment(stage: str, keys: tuple[str, ...]) -> str:
    """The comment of the Slurm job for one job; an array's names its first one only."""
    return f"{COMMENT}{stage}" + (f"_wildcards_{'_'.join(keys)}" if keys else "")


def slurm_logs(stage: str, keys: tuple[str, ...]) -> list[Path]:
    """What Slurm itself wrote about one job, once for each time that it was submitted."""
    return list((SLURM_LOGS / f"rule_{stage}" / "_".join(keys)).glob("*.log"))


def submitted() -> Iterator[tuple[str, str]]:
    """Outputs in the making, and the numbers of the Slurm jobs that make them.

    A marker's path is its output's, in base64 and cut into names that a file system takes; all but the last begin
    with @.
    """
    for file in MARKERS.rglob("*"):
        with suppress(OSError, ValueError):
            number = json.loads(file.read_text())["external_jobid"]
            text = "".join(part.removeprefix("@") for part in file.relative_to(MARKERS).parts)
            yield base64.urlsafe_b64decode(text).decode(), str(number)


def members(folder: Path) -> list[Path]:
    """The files in a folder of results."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != TIMESTAMP)


def dvc_configurations() -> list[Path]:
    """DVC's configuration files; of two that say something the later one counts."""
    from dvc.dirs import global_config_dir, system_config_dir

    folders = (system_config_dir(), global_config_dir(), ".dvc")
    return [*(Path(folder, "config") for folder in folders), Path(".dvc/config.local")]
