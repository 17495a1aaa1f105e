"""Find the live holder of a lock without taking the lock.

Taking a lock to see whether it is free, however briefly, could make a trainer that starts at that moment believe that
another process is at work, and give up. So nothing is locked here. The lock file says who took it, and the kernel says
whether that process still has the file open: `/proc/PID/fd`. (`/proc/locks` names files by the device number inside the
kernel, which on overlayfs and btrfs is not the one that `stat` gives.) A lock file that stayed behind belongs to a
process that was killed: one that ends by itself, also on SIGTERM, removes it.

Processes of other machines cannot be seen. Slurm answers for its jobs, and else the age of the last sign of life.
"""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_MOMENT = 60.0  # seconds


@dataclass(frozen=True)
class Holder:
    """What a lock file says (`job`: Slurm's number or ""); `alive` is None where it cannot be known from here."""

    pid: int
    host: str
    job: str
    since: float
    alive: bool | None


def holder(output: Path) -> Holder | None:
    """Read who holds, or held, the making of `output`; None if nobody does."""
    name = output.with_name(f".{output.name}.lock")
    try:
        said, since = name.read_text(errors="replace"), name.stat().st_mtime
    except OSError:
        return None
    match = re.match(r"process (\d+) on ([^\s,]+)(?:, Slurm job (\d+))?", said)
    if not match:  # the lock file is created, but its owner is not yet written: a matter of moments
        return Holder(0, socket.gethostname(), "", since, time.time() - since < _MOMENT)
    pid, host, job = int(match[1]), match[2], match[3] or ""
    return Holder(pid, host, job, since, _has_open(pid, name) if host == socket.gethostname() else None)


def _has_open(pid: int, file: Path) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's: its files cannot be looked at
        return True
    try:
        opened = list((PROC / str(pid) / "fd").iterdir())
    except OSError:
        return not PROC.joinpath("self").exists()  # no /proc here: that the process is alive must do
    for descriptor in opened:
        with suppress(OSError):
            if descriptor.samefile(file):
                return True
    return False


class Writers:
    """The files that processes of this machine have as their standard output: logs of jobs at work.

    A job needs some seconds before it takes its lock (torch is imported, inputs are hashed); its log is open all along.
    """

    def __init__(self) -> None:
        self.files: set[tuple[int, int]] = set()
        for process in PROC.glob("[0-9]*"):
            with suppress(OSError):
                found = (process / "fd" / "1").stat()
                self.files.add((found.st_dev, found.st_ino))

    def __contains__(self, log: Path) -> bool:
        try:
            found = log.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) in self.files
