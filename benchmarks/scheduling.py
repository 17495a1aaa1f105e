"""What a run costs beside its training: a job each, a job array, blocks of seeds; on a Slurm of this host.

    python benchmarks/scheduling.py [--runs 100] [--together 10] [--arrangements single,array,...] [--markdown]

A toy of the digits study whose training takes about a second, so that all else is overhead. Data, teacher and view
table are there before the clock starts. The Slurm is that of the tests: controller and node on loopback, four stand-ins
for GPUs. Wall time is that of the engine's command, table included. Processor time is that of all Python processes it
caused, in jobs or not: each adds its own when it ends.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from side_by_side import parser, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from slurm_cluster import SlurmCluster
from workbench import Workbench

from distillery.pipeline.layout import Layout

# Every Python process of the study adds its processor seconds to a file.
NOTE = """import atexit, os, resource


def note():
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open(os.environ["SPENT"], "a") as file:
        file.write(f"{used.ru_utime + used.ru_stime}\\n")


atexit.register(note)
"""
AT, PAIR = Layout("digits"), "resnet20_w8-resnet8_w8"
SLURM = ("--profile", "slurm", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5")


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, runs=100, together=10)
    options.add_argument("--arrangements", default="single,array,block,here", help="which of these, in order")
    given = options.parse_args(argv)
    runs, together = given.runs, given.together
    one_each = tuple(range(runs))
    blocks = tuple(f"{first}-{min(first + together, runs) - 1}" for first in range(0, runs, together))
    arrangements: dict[str, tuple[str, tuple[int | str, ...], tuple[str, ...]]] = {
        "single": ("a job each", one_each, SLURM),
        "array": ("job arrays", one_each, (*SLURM, "--slurm-array-jobs", "distill,evaluate")),
        "block": (f"blocks of {together} seeds", blocks, SLURM),
        "here": ("no Slurm: `snakemake --cores 2`", one_each, ("--cores", "2")),
    }
    os.environ["COLD"] = "1"  # the tests' commands start with torch in memory, a user's do not
    with tempfile.TemporaryDirectory() as folder, SlurmCluster() as slurm:
        bench = prepared(Path(folder))
        rows = [measure(bench, slurm, runs, *arrangements[name]) for name in given.arrangements.split(",")]
        alone = training(bench)
    heads = ["arrangement", "Slurm jobs", "wall, s", "wall per run, s", "processor per run, s"]
    note = f"{runs} runs of one pair and method, whose epochs take {alone:.1f} s of processor time each."
    show("scheduling: a run's cost beside its training", heads, rows, given.markdown, note)


def prepared(root: Path) -> Workbench:
    """A toy study with everything done that its runs share."""
    bench = Workbench(root)
    bench.tiny(epochs=1, methods=("kd",))
    (root / "note").mkdir()
    (root / "note" / "sitecustomize.py").write_text(NOTE)
    bench.run("snakemake", "--cores", "1", str(AT.pair(PAIR)))
    return bench


def measure(
    bench: Workbench,
    slurm: SlurmCluster,
    runs: int,
    title: str,
    seeds: tuple[int | str, ...],
    options: tuple[str, ...],
) -> list[Any]:
    """Train and evaluate all runs in one arrangement, from nothing but what they share."""
    bench.params = bench.params | {"seeds": list(seeds)}
    for made in (AT.artifacts / "runs", AT.all_metrics, AT.results, "spent"):
        bench.run("rm", "-rf", str(made))
    before = slurm.jobs()
    env = {"PYTHONPATH": f"{bench.root / 'src'}:{bench.root / 'note'}", "SPENT": str(bench.root / "spent")}
    start = time.perf_counter()
    bench.run("snakemake", *options, **slurm.env, **env)
    wall = time.perf_counter() - start
    jobs = {job.partition("_")[0] for job in set(slurm.jobs()) - set(before)}
    processor = sum(map(float, (bench.root / "spent").read_text().split()))
    row = [title, len(jobs), f"{wall:.0f}", f"{wall / runs:.1f}", f"{processor / runs:.1f}"]
    print(*row, sep="\t", file=sys.stderr, flush=True)
    return row


def training(bench: Workbench) -> float:
    """Processor seconds of one run's epochs alone: nine seeds in one process against one."""
    used = []
    bench.params = bench.params | {"seeds": ["0", "1-9"]}
    bench.run("rm", "-rf", str(AT.artifacts / "runs"))  # finished runs would be taken over
    bench.run("distillery", "plan")
    for seeds in ("0", "1-9"):
        command = ("distillery", "distill", "--pair", PAIR, "--method", "kd", "--seed", seeds)
        timed = bench.run("bash", "-c", 'TIMEFORMAT="%U %S"; time "$@" > log 2>&1', "-", *command)
        used.append(sum(map(float, timed.stderr.split())))
    return (used[1] - used[0]) / 8


if __name__ == "__main__":
    main()
