"""Leaving in order: a signal that ends a command is one sentence and an exit code, and nothing half-made stays behind.

Ctrl-C (SIGINT), SIGTERM and SIGHUP are obeyed alike. Training has a handler of its own, which writes the checkpoint
first.
"""

from __future__ import annotations

import atexit
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)

SAID = {
    signal.SIGINT: "Ctrl-C (SIGINT)",
    signal.SIGTERM: "SIGTERM (cancelled, preempted or out of time)",
    signal.SIGUSR1: "SIGUSR1 (soon out of time)",
    signal.SIGHUP: "SIGHUP (the terminal was closed)",
}


def ending() -> list[signal.Signals]:
    """The signals that end a command, but those that are being ignored."""
    return [s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is not signal.SIG_IGN]


def ignored(number: int) -> bool:
    """Whether a signal is meant to have no effect: Ctrl-C in a shell's background jobs, SIGHUP under nohup."""
    return number in (signal.SIGINT, signal.SIGHUP) and signal.getsignal(number) is signal.SIG_IGN


def silence_a_closed_terminal(number: int) -> None:
    """After SIGHUP nobody reads the terminal, and writing to it fails: what is printed there goes nowhere."""
    if number == signal.SIGHUP:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            with suppress(OSError):  # closed before
                if stat.S_ISCHR(os.fstat(stream).st_mode):
                    os.dup2(nowhere, stream)
        os.close(nowhere)


class Stopped(SystemExit):
    """A signal ended the command: exit code 128 + its number, as a shell would say it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.by = SAID[signal.Signals(number)]
        self.told = False  # whether the user knows


@contextmanager
def leaving_in_order(then: str = "") -> Iterator[None]:
    """While entered, these signals raise Stopped, so that locks and temporary files go; `then` ends the sentence.

    One that was being ignored still is. Whoever sends it sends it more than once (Slurm, an impatient finger): the
    first one is obeyed.
    """

    def leave(number: int, _: object) -> None:
        silence_a_closed_terminal(number)
        if not isinstance(sys.exception(), SystemExit):
            raise Stopped(number)

    before = {s: signal.signal(s, leave) for s in ending()}
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
