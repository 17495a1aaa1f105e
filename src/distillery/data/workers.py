"""Views made by other processes, ahead of the training; or by this one.

What is asked for decides what comes: a view is a function of its row of numbers, and which process makes it, or
whether it was made ahead, changes nothing. The caller says what it will ask for next, and that is made meanwhile, as
far as there is room: a fixed number of slots in memory that all processes share. The memory has no name, so nothing is
left behind however the processes end.
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Protocol

import numpy as np

import distillery
from distillery import settings
from distillery.data.arrays import Bytes
from distillery.data.blob import Blob
from distillery.data.cutting import Cuts, Undecodable, cut
from distillery.errors import DistilleryError
from distillery.records.leaving import SAID

DECIDES_RESULTS = False  # how views are made, not what they are (see pipeline/fingerprint.py)
CHUNK = 16  # views that a process makes in one go: some 25 ms
AHEAD = 4  # chunks that each process can have waiting, at least
MOST = 64  # and at most: were a socket full in both directions, both sides would wait for ever
# Sent to all processes of a job at once, by the terminal or by Slurm; what is to be done the parent decides.
_NOT_OURS = set(SAID)


class Cutter(Protocol):
    """Who makes views."""

    def cut(self, rows: Cuts, into: Bytes, then: Iterable[Cuts] = ()) -> None:
        """Fill `into`, (B, 3, H, W) uint8, with the views of `rows`, (B, 13); `then` will be asked for next.

        Raises:
            Undecodable: naming the image.
            DistilleryError: if a process ended by itself.
        """

    def close(self) -> None:
        """Let go of processes, memory and files."""


class Here:
    """Views made by this process when they are asked for. `shorten`: see `cutting.cut`."""

    def __init__(self, path: Path, shorten: bool = False) -> None:
        self.blob, self.shorten = Blob(path), shorten

    def cut(self, rows: Cuts, into: Bytes, then: Iterable[Cuts] = ()) -> None:
        for row, view in zip(rows, into, strict=True):
            cut(self.blob, row, view, self.shorten)

    def close(self) -> None:
        self.blob.close()


@dataclass(slots=True)
class _Job:
    worker: int
    slot: int
    done: bool = False
    wanted: bool = True
    error: tuple[int, str] | None = None


class Workers:
    """Views made by `count` processes that live as long as this object, or as its own process.

    Args:
        size: height and width of all views.
        batch: views that are asked for at once; there is room for three times as many.
    """

    def __init__(self, path: Path, count: int, size: tuple[int, int], batch: int) -> None:
        slots = max(3 * -(-batch // CHUNK), AHEAD * count)
        shape = (slots, CHUNK, 3, *size)
        memory = _memory(slots * CHUNK * size[0] * size[1] * 3)
        self._slots = np.frombuffer(mmap.mmap(memory, 0), dtype=np.uint8).reshape(shape)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sockets: list[Connection] = []
        self._finalise = weakref.finalize(self, _close, self._sockets, self._processes)
        try:
            for _ in range(count):
                self._start(path, memory, size)
        finally:
            os.close(memory)
        self._free, self._load = [*range(slots)], [0] * count
        self._jobs: dict[int, _Job] = {}  # by slot
        self._flying: dict[bytes, _Job] = {}  # by what was asked for

    def _start(self, path: Path, memory: int, size: tuple[int, int]) -> None:
        ours, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "distillery.data.worker", theirs.fileno(), memory, os.getpid()]
        command += [CHUNK, *size, path.absolute()]
        home = Path(distillery.__file__).parents[1]
        environment = settings.environment(
            PYTHONPATH=settings.before("PYTHONPATH", home), OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=""
        )
        # What is blocked here stays so in the new process, from its first instruction on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_OURS)
        try:
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=(theirs.fileno(), memory),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._processes.append(process)
        self._sockets.append(ours)

    def close(self) -> None:
        self._finalise()

    def cut(self, rows: Cuts, into: Bytes, then: Iterable[Cuts] = ()) -> None:
        wanted = [*_chunks(rows)]
        plan = [*wanted, *islice(chain.from_iterable(map(_chunks, then)), len(self._slots))]
        coming = {key for key, _ in plan}
        for key in [key for key in self._flying if key not in coming]:
            self._give_up(key)
        start = 0
        for i, (key, chunk) in enumerate(wanted):
            self._submit(plan[i:])
            if key not in self._flying and not self._free:  # all are taken: by what was given up, or what comes later
                if all(job.wanted for job in self._jobs.values()):
                    self._give_up(next(k for k, _ in reversed(plan) if k in self._flying))
                while not self._free:
                    self._receive()
                self._submit(plan[i : i + 1])
            while key not in self._flying:  # all processes have enough to do
                self._receive()
                self._submit(plan[i : i + 1])
            job = self._flying[key]
            while not job.done:
                self._receive()
            del self._flying[key]
            self._release(job)
            if job.error:
                raise DistilleryError(job.error[1]) if job.error[0] < 0 else Undecodable(*job.error)
            into[start : start + len(chunk)] = self._slots[job.slot, : len(chunk)]
            start += len(chunk)
        self._submit(plan[len(wanted) :])

    def _submit(self, plan: Iterable[tuple[bytes, Cuts]]) -> None:
        """Hand out what is not being made yet, in order, as long as there are free slots and processes."""
        for key, chunk in plan:
            if not self._free:
                return
            if key not in self._flying:
                worker = min(range(len(self._load)), key=self._load.__getitem__)
                if self._load[worker] >= MOST:
                    return
                job = self._flying[key] = _Job(worker, self._free.pop())
                self._jobs[job.slot] = job
                self._load[worker] += 1
                try:
                    self._sockets[worker].send((job.slot, chunk))
                except OSError:
                    raise self._died(worker) from None

    def _receive(self) -> None:
        """Wait for at least one answer."""
        for socket in wait(self._sockets):
            assert isinstance(socket, Connection)
            try:
                slot, error = socket.recv()
            except (EOFError, OSError):
                raise self._died(self._sockets.index(socket)) from None
            job = self._jobs[slot]
            job.done, job.error = True, error
            self._load[job.worker] -= 1
            if not job.wanted:
                self._release(job)

    def _give_up(self, key: bytes) -> None:
        """Make a slot free: now, or when what is being written to it is there."""
        job = self._flying.pop(key)
        job.wanted = False
        if job.done:
            self._release(job)

    def _release(self, job: _Job) -> None:
        del self._jobs[job.slot]
        self._free.append(job.slot)

    def _died(self, worker: int) -> DistilleryError:
        code = self._processes[worker].wait()
        how = f"was killed (signal {-code})" if code < 0 else f"ended by itself (exit code {code})"
        self.close()
        return DistilleryError(
            f"a process that decodes images {how}: see what it printed; if memory ran out, use fewer by "
            f"{settings.WORKERS}"
        )


def _chunks(rows: Cuts) -> Iterator[tuple[bytes, Cuts]]:
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        yield chunk.tobytes(), chunk


def _memory(size: int) -> int:
    """A descriptor of so many bytes of memory without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("distillery-views")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


def _close(sockets: list[Connection], processes: list[subprocess.Popen[bytes]]) -> None:
    for socket in sockets:
        socket.close()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
            continue
        process.kill()
        process.wait()
