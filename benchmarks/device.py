"""All that wants a GPU, by priority, until the time is up: checks, timings, and real runs of a study.

    python benchmarks/device.py --minutes 9 [--parts checks,step,...] [--study cifar100_protocol [--methods ce,kd]]

For a machine that is lent for minutes and may have no engine. Every part is a process of its own, with a limit of its
own; what was done is noted in the state folder, so the same command goes on with what was not reached. A study's jobs
run in the order of its methods (or of those named, where there is no time for the others), the first block of seeds of
all of them before the second; runs that are kept in git are left out. What is unfinished when the time is up leaves its
checkpoint in the state folder; what is finished is measured and kept (`distillery keep`), and the study's tables, its
kept runs and all logs are copied to the out folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAIRS = ("resnet56:resnet20", "resnet32x4:resnet8x4", "wrn_40_2:wrn_16_2", "vgg13:vgg8")
RESERVE = 40.0  # seconds that a study keeps back for measuring what it has trained
LEAST = 20.0  # nothing is started with less than this left


class Time:
    """What is left of the time, and a log of what was done with it."""

    def __init__(self, seconds: float) -> None:
        self.start, self.seconds = time.monotonic(), seconds

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.start:6.1f} s] {text}", flush=True)


def limited(commands: Sequence[tuple[Sequence[str], Path]], seconds: float, folder: Path = ROOT) -> list[int]:
    """Run commands side by side, output to their files; ask those to stop that take longer. Gives their exit codes."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    running = []
    for command, log in commands:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            keys = {"cwd": folder, "env": environment, "stdout": file, "stderr": subprocess.STDOUT}
            running.append(subprocess.Popen([sys.executable, *command], start_new_session=True, **keys))  # type: ignore[call-overload]
    end = time.monotonic() + seconds
    for ask in (signal.SIGTERM, signal.SIGKILL):
        while any(p.poll() is None for p in running) and time.monotonic() < end:
            time.sleep(0.05)
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, ask)
        end = time.monotonic() + 20
    return [process.wait() for process in running]


def parts() -> dict[str, list[tuple[str, list[str], float]]]:
    """Everything but the study, in its usual order: under each name the pieces' names, commands and limits."""
    here, rounds = ROOT / "benchmarks", ["--steps", "150", "--rounds", "3"]
    tests = [str(p) for p in sorted((ROOT / "tests").glob("test_*.py")) if "cuda.is_available()" in p.read_text()]
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-k", "captured or cuda or device"]
    options += ["-n", "8"] if importlib.util.find_spec("xdist") else []
    shared = ["--processes", "1x1", "--graphs", "1,4,16", "--seconds", "4", "--rounds", "1"]
    students = ["--students", "resnet20,resnet8x4"]
    return {
        "checks": [("checks", ["-m", "pytest", *tests, *options], 240)],
        "step": [
            (f"step-{pair.replace(':', '-')}", [f"{here}/bench.py", "--pairs", pair, *rounds, "--markdown"], 90)
            for pair in PAIRS
        ],
        "packing": [("packing", [f"{here}/packing.py", "--student", "resnet20", "--precision", "tf32", *shared], 90)],
        "table": [("table", [f"{here}/table.py", "--teachers", "resnet56", "--images", "500", "--rounds", "2"], 60)],
        "layout": [
            (f"layout-{name}", [f"{here}/limit.py", "--contiguous", "--precision", name, *students, *rounds], 60)
            for name in ("float32", "tf32", "bfloat16")
        ],
        "kernels": [("kernels", [f"{here}/kernels.py", "--precision", "bfloat16", "--compile"], 90)],
        "deterministic": [("deterministic", [f"{here}/deterministic.py", *rounds], 90)],
        "objectives": [("objectives", [f"{here}/objectives.py", "--device", "cuda", "--seconds", "0.1"], 90)],
    }


def study_of(name: str, methods: list[str], folder: Path, out: Path, clock: Time) -> None:
    """Run jobs of a ready-made study, or of a params.yaml, until the time is up; measure and keep what is finished."""
    from distillery.pipeline import kept
    from distillery.pipeline.current import Judge
    from distillery.pipeline.job import Job
    from distillery.pipeline.planner import current

    given = Path(name).resolve() if Path(name).is_file() else ROOT / "workflow/studies" / f"{name}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(given, folder / "params.yaml")
    os.chdir(folder)
    study, plan = current(write=True)
    if (ROOT / plan.layout.kept).exists():
        shutil.copytree(ROOT / plan.layout.kept, plan.layout.kept, dirs_exist_ok=True)

    def run(jobs: Sequence[Job], seconds: float) -> bool:
        logs = [out / f"{job.name.replace(' ', '-')}.log" for job in jobs]
        commands = [(["-m", "distillery", "run", str(j.path)], log) for j, log in zip(jobs, logs, strict=True)]
        began, codes = time.monotonic(), limited(commands, seconds, folder)
        took = time.monotonic() - began
        for job, code, log in zip(jobs, codes, logs, strict=True):
            last = (log.read_text().strip().splitlines() or [""])[-1]
            clock.say(f"{job.name}: {said(code)} after {took:.0f} s. {last}")
        return not any(codes)

    def enough() -> bool:
        return clock.left > RESERVE + LEAST

    if unknown := [method for method in methods if method not in study.methods]:
        raise SystemExit(f"--methods: {study.study} has no {unknown[0]!r}; it has {', '.join(study.methods)}")
    blocks, wanted = [str(block) for block in study.seeds], methods or [*study.methods]
    cells = [cell for cell in study.cells() if cell[1] in wanted]
    cells.sort(key=lambda cell: (blocks.index(str(cell[2])), wanted.index(cell[1])))
    keys = [{"pair": pair, "method": method, "seed": str(block)} for pair, method, block in cells]
    todo = [key for key in keys if not kept.find(plan, plan.job("evaluate", **key))]
    before = [job for job in Judge(plan).due() if todo and job.stage in ("data", "teacher", "cache", "pair")]
    ready = all(enough() and run([job], clock.left - RESERVE) for job in before)
    judge, trained = Judge(plan), []
    for key in todo if ready else []:
        job = plan.job("distill", **key)
        if judge.verdict(job).current or (enough() and run([job], clock.left - RESERVE)):
            trained.append(plan.job("evaluate", **key))
    judge = Judge(plan)  # another: each judges a job once
    due = [job for job in trained if not judge.verdict(job).current]
    for i in range(0, len(due), 4):
        run(due[i : i + 4], max(1.0, clock.left - 10))
    new = kept.keep(plan)
    if plan.layout.kept.exists():
        _, plan = current(write=True)
        run([plan.job("tables")], max(10.0, clock.left))
        shutil.copytree(plan.layout.results, out / "results" / study.study, dirs_exist_ok=True)
    runs, left = sum(len(job.seeds) for job in new), len(todo) - len(new)
    clock.say(f"{study.study}: {runs} more runs kept, {left} jobs left")


def said(code: int) -> str:
    return "done" if code == 0 else f"exit {code}"


def main(argv: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--minutes", type=float, default=9, help="in all; default 9")
    every = parts()
    usual = ",".join(every)
    options.add_argument("--parts", default=usual, help=f"in this order, before the study; default {usual}; none: ''")
    options.add_argument("--study", help="a ready-made study, or a file like params.yaml")
    options.add_argument("--methods", default="", help="of the study, in this order; default: all of them")
    options.add_argument("--out", type=Path, default=Path("device-out"), help="logs and results; default device-out")
    options.add_argument("--state", type=Path, default=Path("device-state"), help="what is done; default device-state")
    given = options.parse_args(argv)
    out, state, clock = given.out.resolve(), given.state.resolve(), Time(60 * given.minutes)
    names = [name for name in given.parts.split(",") if name]
    if unknown := [name for name in names if name not in every]:
        options.error(f"--parts: there is no {unknown[0]!r}; there are {usual}")
    ready = [path.stem for path in sorted((ROOT / "workflow/studies").glob("*.yaml"))]
    if given.study and given.study not in ready and not Path(given.study).is_file():
        options.error(f"--study: {given.study} is no file and no ready-made study; there are {', '.join(ready)}")
    state.mkdir(parents=True, exist_ok=True)
    note = state / "done.json"
    done = json.loads(note.read_text()) if note.exists() else []
    for name, command, limit in (piece for part in names for piece in every[part]):
        if name in done or clock.left < LEAST:
            clock.say(f"{name}: {'done before' if name in done else 'no time left'}")
            continue
        log = out / f"{name}.log"
        [code] = limited([(command, log)], min(limit, clock.left - 5))
        clock.say(f"{name}: {said(code)}")
        print("\n".join(log.read_text().strip().splitlines()[-12:]), flush=True)
        if code >= 0:  # else the time cut it short
            note.write_text(json.dumps(done := [*done, name]))
    if given.study:
        study_of(given.study, [m for m in given.methods.split(",") if m], state / "study", out, clock)


if __name__ == "__main__":
    main()
