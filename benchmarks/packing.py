"""How many students to train side by side: the aggregate rate of several on one device.

    python benchmarks/packing.py [--student resnet8x4] [--processes 1x1,2x1,1x2] [--graphs 1,2,4] [--seconds 20]

Processes are counted as PROCESSES x THREADS of each; the default is 1, 2, 4, 8 and 16 of one thread on a CUDA device
(start the MPS daemon first to share it that way; the note says whether it runs), and on the CPU one or two of one
thread against one of two. On CUDA also so many captured graphs on streams of their own within one process. Students per
hour are CIFAR-100 students of 240 epochs of 782 steps, without their tests.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from ours import Ours, pixels, random_table
from side_by_side import device, now, parser, show, use_threads

from distillery.study.blocks import Recipe

STEPS = 240 * 782  # of one student


def prepared(given: Any) -> Ours:
    recipe = Recipe(batch_size=given.batch, precision=given.precision, channels_last=True)
    return Ours(given.student, pixels(given.images, None), random_table(given.images, 162, 100), recipe)


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
    ours = prepared(given)
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


def graphs(given: Any, count: int) -> float:
    """Steps per second of `count` students in this process, each on a stream of its own."""
    students = [(prepared(given), torch.cuda.Stream()) for _ in range(count)]
    for ours, _ in students:
        ours.run(2)

    def advance() -> int:
        for ours, stream in students:
            with torch.cuda.stream(stream):
                ours.advance()
        return count

    return rate(advance, given.seconds)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=3, batch=64, images=10_000)
    options.add_argument("--student", default="resnet8x4")
    on_cuda = device().type == "cuda"
    default = "1x1,2x1,4x1,8x1,16x1" if on_cuda else "1x1,2x1,1x2"
    options.add_argument("--processes", default=default, help=f"processes x threads of each; default {default}")
    options.add_argument("--graphs", default="1,2,4,8", help="students in one process, on CUDA; default 1,2,4,8")
    options.add_argument("--seconds", type=float, default=20, help="measuring time of each arrangement and round")
    options.add_argument("--precision", default="float32", help="of the recipe: float32, tf32, bfloat16")
    given = options.parse_args(argv)
    sides: dict[str, Callable[[], float]] = {}
    for arrangement in given.processes.split(","):
        count, threads = map(int, arrangement.split("x"))
        sides[f"{count} process(es) of {threads} thread(s)"] = partial(processes, given, count, threads)
    for count in map(int, given.graphs.split(",") if on_cuda else ()):
        sides[f"{count} graph(s) in one process"] = partial(graphs, given, count)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, side in sides.items():
            rates[name].append(side())
    first = rates[next(iter(sides))]
    rows = []
    for name, found in rates.items():
        gain = statistics.median(a / b for a, b in zip(found, first, strict=True))
        per_hour = 3600 * statistics.median(found) / STEPS
        rows.append([name, f"{statistics.median(found):.3g}", f"{per_hour:.3g}", f"{gain:.2f}"])
    mps = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control").exists()
    note = f"{given.student}, batch {given.batch}, {given.precision}, {given.rounds} rounds of {given.seconds:g} s. "
    if on_cuda:
        note += f"MPS {'runs' if mps else 'does not run'}."
    else:
        note += "There is no CUDA device here, so students that share one were not measured."
    heads = ["arrangement", "steps/s", "students/h", "x the first row"]
    show(f"packing: several students at once on {device().type}", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
