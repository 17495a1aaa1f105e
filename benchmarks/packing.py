"""How many students to train side by side: the aggregate rate of several on one device.

    python benchmarks/packing.py [--student resnet8x4] [--processes 1x1,2x1,1x2] [--graphs 1,2,4] [--seconds 20]

Processes are counted as PROCESSES x THREADS of each; the default is 1, 2, 4, 8 and 16 of one thread on a CUDA device
(start the MPS daemon first to share it that way; the note says whether it runs), and on the CPU one or two of one
thread against one of two; none: ''. On CUDA also so many students within one process, a step of each in turn on streams
of their own, as `at_once` trains them. Students per hour are CIFAR-100 students of 240 epochs of 782 steps, without
their tests.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import torch.multiprocessing as multiprocessing
from ours import Ours, pixels, random_table
from side_by_side import device, milliseconds, now, parser, show, use_threads

from distillery.report.recipes import precision_of
from distillery.study.blocks import Recipe
from distillery.training.together import Turn

STEPS = 240 * 782  # of one student


def recipe_of(given: Any) -> Recipe:
    return Recipe(batch_size=given.batch, precision=given.precision, channels_last=True, compile=given.compile)


def prepared(given: Any, count: int = 1) -> list[Ours]:
    """So many students that share pixels and table."""
    recipe = recipe_of(given)
    data, table = pixels(given.images, None).to(device()), random_table(given.images, 162, 100)
    return [Ours(given.student, data, table, recipe) for _ in range(count)]


def rate(advance: Callable[[], int], seconds: float) -> float:
    """Steps per second of something that makes a number of steps at each call."""
    steps, start = 0, now()
    while time.perf_counter() - start < seconds:
        for _ in range(50 if device().type == "cuda" else 1):
            steps += advance()
        now()  # wait for the device, so that work queued is work done
    return steps / (time.perf_counter() - start)


def _job(given: Any, threads: int, barrier: Any, results: Any) -> None:
    use_threads(threads)
    [ours] = prepared(given)
    ours.run(2)
    barrier.wait()
    results.put(rate(lambda: ours.advance() or 1, given.seconds))


def processes(given: Any, count: int, threads: int) -> float:
    """Steps per second of `count` processes together, each with so many threads."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.SimpleQueue()
    jobs = [context.Process(target=_job, args=(given, threads, barrier, results)) for _ in range(count)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    if any(job.exitcode for job in jobs):
        raise SystemExit(f"packing: one of {count} processes failed; see its message above")
    return sum(results.get() for _ in jobs)


def graphs(given: Any, count: int, queueing: list[float]) -> float:
    """Steps per second of `count` students in this process, each on a stream of its own.

    Adds to `queueing` the seconds that a step takes this process while nothing keeps it waiting: its inverse is the
    rate that no number of students exceeds.
    """
    turns = [Turn(_steps(ours), device(), seed) for seed, ours in enumerate(prepared(given, count))]

    def advance() -> int:
        for turn in turns:
            with turn.taken():
                next(turn.fitting)
        return count

    advance()
    now()
    start, rounds = time.perf_counter(), max(1, 32 // count)
    for _ in range(rounds):  # few enough for the device's queue
        advance()
    queueing.append((time.perf_counter() - start) / (rounds * count))
    return rate(advance, given.seconds)


def _steps(ours: Ours) -> Generator[None, None, Any]:
    """One step after another, and no end."""
    while True:
        ours.advance()
        yield


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=3, batch=64, images=10_000)
    options.add_argument("--student", default="resnet8x4")
    on_cuda = device().type == "cuda"
    default = "1x1,2x1,4x1,8x1,16x1" if on_cuda else "1x1,2x1,1x2"
    options.add_argument("--processes", default=default, help=f"processes x threads of each; default {default}")
    several = "1,2,4,8" if on_cuda else ""
    options.add_argument("--graphs", default=several, help="students in one process; default on CUDA 1,2,4,8")
    options.add_argument("--seconds", type=float, default=20, help="measuring time of each arrangement and round")
    options.add_argument("--precision", default="float32", help="of the recipe: float32, tf32, bfloat16")
    options.add_argument("--compile", action="store_true", help="compile the student")
    given = options.parse_args(argv)
    sides: dict[str, Callable[[], float]] = {}
    for arrangement in filter(None, given.processes.split(",")):
        count, threads = map(int, arrangement.split("x"))
        sides[f"{count} process(es) of {threads} thread(s)"] = partial(processes, given, count, threads)
    queueing: dict[str, list[float]] = {}
    for count in map(int, filter(None, given.graphs.split(","))):
        name = f"{count} student(s) in one process"
        sides[name] = partial(graphs, given, count, queueing.setdefault(name, []))
    if not sides:
        options.error("--processes, --graphs: nothing to measure")
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, side in sides.items():
            rates[name].append(side())
    first = rates[next(iter(sides))]
    rows = []
    for name, found in rates.items():
        gain = statistics.median(a / b for a, b in zip(found, first, strict=True))
        per_hour = 3600 * statistics.median(found) / STEPS
        row = [name, f"{statistics.median(found):.3g}", f"{per_hour:.3g}", f"{gain:.2f}"]
        rows.append([*row, milliseconds(queueing[name]) if name in queueing else ""])
    mps = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()
    how = precision_of(recipe_of(given).effective())
    note = f"{given.student}, batch {given.batch}, {how}, {given.rounds} rounds of {given.seconds:g} s. "
    if on_cuda:
        note += f"MPS {'runs' if mps else 'does not run'}."
    else:
        note += "There is no CUDA device here, so students that share one were not measured."
    heads = ["arrangement", "steps/s", "students/h", "x the first row", "queueing, ms/step"]
    show(f"packing: several students at once on {device().type}", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
