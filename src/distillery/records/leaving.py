"""Leaving in order: a signal that ends a command is one sentence and an exit code, and nothing half-made stays behind.

Ctrl-C (SIGINT) and SIGTERM are obeyed alike. Training has a handler of its own, which writes the checkpoint first.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)

SAID = {
    signal.SIGINT: "Ctrl-C (SIGINT)",
    signal.SIGTERM: "SIGTERM (cancelled, preempted or out of time)",
    signal.SIGUSR1: "SIGUSR1 (soon out of time)",
}


class Stopped(SystemExit):
    """A signal ended the command: exit code 128 + its number, as a shell would say it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.by = SAID[signal.Signals(number)]
        self.told = False  # whether the user knows


@contextmanager
def leaving_in_order(then: str = "") -> Iterator[None]:
    """While entered, SIGINT and SIGTERM raise Stopped, so that locks and temporary files go; `then` ends the sentence.

    A signal that was being ignored (SIGINT in a shell's background jobs) still is. Whoever sends it sends it more than
    once (Slurm, an impatient finger): the first one is obeyed.
    """

    def leave(number: int, _: object) -> None:
        if not isinstance(sys.exception(), SystemExit):
            raise Stopped(number)

    kinds = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, leave) for s in kinds}
    try:
        yield
    except Stopped as stopped:
        if not stopped.told:
            print(f"stopped by {stopped.by}{then and ': '}{then}", flush=True)
            stopped.told = True
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_at_once(end: SystemExit) -> None:
    """End the process now, with what is to be done at its end: taking torch's modules apart takes 0.4 s, for nothing.

    Returns where Python itself has more to do: say why it ends, or wait for a thread.
    """
    if isinstance(end.code, int | None) and threading.active_count() == 1:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream:  # None where a shell closed it
                stream.flush()
        os._exit(end.code or 0)
