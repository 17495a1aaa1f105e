"""Functions in new processes: a fork of pytest would inherit its pipes, its threads' locks and what torch remembers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


def exit_code(function: Callable[..., Any], *args: Any) -> int | None:
    """Run a function of a test's module in a new process; its exit code, or minus the signal that ended it.

    None if it has not ended after ten minutes.
    """
    process = multiprocessing.get_context("spawn").Process(target=function, args=args, daemon=True)
    process.start()
    process.join(600)
    return process.exitcode
