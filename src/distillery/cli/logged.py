"""A job as an engine runs it: what it prints goes to its log, and one line about what came of it to the terminal."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from distillery.errors import DistilleryError
from distillery.pipeline.job import Job

_QUIET = ("pair", "evaluate")  # seconds each, and as many as there are students: nothing to say if all is well


def logged(job: Job, log: Path, work: Callable[[], Path | None]) -> None:
    """Do the work with stdout and stderr in the log, also of C code and of child processes.

    `work` returns the record that its outputs were copied from, None if it made them.

    A mistake of the user's is the last line of the log, as `distillery status` expects it, and is printed too.
    Raises SystemExit: with 1 after a failure, with what the work itself raises after a signal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.dup(sys.stdout.fileno())
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    began = time.monotonic()

    def say(line: str) -> None:
        with suppress(OSError):  # the terminal may have been closed; what was done is done, and the log has it
            os.write(terminal, f"{line}\n".encode())

    try:
        copied = work()
    except DistilleryError as error:
        print(f"distillery: {error}", file=sys.stderr, flush=True)
        say(f"FAILED  {job.name}: {error}  ({log})")
        sys.exit(1)
    except SystemExit as stopped:
        if stopped.code:
            say(f"stopped {job.name}  ({log})")
        raise
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        said = " ".join(str(error).split())[:300]
        say(f"FAILED  {job.name}: {type(error).__name__}: {said}  ({log})")
        sys.exit(1)
    if job.stage not in _QUIET:
        how = f"copied from {copied}" if copied else f"{time.monotonic() - began:.0f} s"
        say(f"done    {job.name}: {outcome(job)} ({how})")


def outcome(job: Job) -> str:
    """What came of a finished job, in a few words: of a network that was trained its last test, for every seed."""
    if job.stage == "tables":
        return str(job.layout.result_files()["markdown"])
    if job.stage in _QUIET:
        return str(job.record)
    if job.stage not in ("teacher", "distill"):
        return f"{sum(path.stat().st_size for path in job.outputs.values() if path.is_file()) / 1e6:,.1f} MB"
    from distillery.records.io import read_json
    from distillery.task import task_of
    from distillery.training.history import load_history

    measure = task_of(job.values["task"]).main
    histories = load_history(job.outputs["history"]).values()
    tested = [[row[f"test_{measure.name}"] for row in rows if f"test_{measure.name}" in row] for rows in histories]
    last = "  ".join(f"{values[-1]:.{measure.digits}f}" for values in tested if values)
    fetched = read_json(job.outputs["record"]).get("fetched") if job.stage == "teacher" else None
    if fetched and f"test_{measure.name}" in fetched:
        last = f"{fetched[f'test_{measure.name}']:.{measure.digits}f}"
    scored = f"{measure.label} {last} {measure.unit}".rstrip() if last else ""
    return ", ".join(filter(None, ("fetched", scored))) if fetched else scored or "trained"
