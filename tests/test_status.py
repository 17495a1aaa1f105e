"""`distillery status`, asked while real jobs run, wait, fail, are killed, and go stale."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster
from workbench import Workbench

from distillery.pipeline.layout import Layout
from distillery.pipeline.planner import current
from distillery.status.show import failures
from distillery.status.states import DONE, FAILED, RUNNING, STALE, TODO, WAITING, Status, look

pytestmark = pytest.mark.slow
AT = Layout("digits")
HOST = socket.gethostname()
WILD = {"objective": "kd", "recipe": {"lr": 1e30}}  # its loss is not finite after a step


def states(bench: Workbench) -> dict[str, Status]:
    """The states of all jobs, by stage and wildcards without the pair."""
    here = Path.cwd()
    os.chdir(bench.root)
    try:
        found = look(current()[1])
    finally:
        os.chdir(here)
    return {s.job.name.replace(f" {pair(bench)}", ""): s for s in found.statuses}


def said(bench: Workbench, **env: str) -> str:
    return bench.run("distillery", "status", **env).stdout


def pair(bench: Workbench) -> str:
    return next(iter(bench.params["pairs"]))


def stages(bench: Workbench, *commands: list[str]) -> None:
    """Run stages in one process, which imports torch once."""
    program = "import sys; from distillery.cli import app; [app(a.split(), standalone_mode=0) for a in sys.argv[1:]]"
    bench.run(sys.executable, "-c", program, *(" ".join(command) for command in commands))


def run(bench: Workbench, stage: str, method: str, seed: str) -> list[str]:
    return [stage, "--pair", pair(bench), "--method", method, "--seed", seed]


def start(bench: Workbench, method: str, seed: str) -> tuple[subprocess.Popen[str], Path]:
    """Train as an engine does, into the log."""
    log = AT.log("distill", pair(bench), method, seed)
    (bench.root / log).parent.mkdir(parents=True, exist_ok=True)
    command = f"exec distillery {' '.join(run(bench, 'distill', method, seed))} > {log} 2>&1"
    return bench.start("bash", "-c", command, **bench.pausing()), bench.root / log


def wait(ready: Callable[[], object], process: subprocess.Popen[str], every: float = 0.02) -> None:
    deadline = time.monotonic() + 600
    while not ready():
        assert process.poll() is None, f"it ended before: {process.communicate()[0]}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGKILL) -> None:
    """End what is left of a process group, also if it is stopped."""
    for one in (how, signal.SIGCONT):
        if process.poll() is None:
            os.killpg(process.pid, one)
    process.communicate(timeout=600)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workbench, str]:
    """A study with a method that must fail, and what the status says before anything has run."""
    bench = Workbench(tmp_path_factory.mktemp("status"))
    bench.tiny(epochs=6, seeds=("0-1",))
    bench.params = bench.params | {"methods": bench.params["methods"] | {"wild": WILD}}
    return bench, said(bench)


@pytest.fixture(scope="module")
def bench(untouched: tuple[Workbench, str]) -> Iterator[Workbench]:
    """The same when everything is done but what must fail, and the tables."""
    bench, _ = untouched
    params = bench.params
    teacher = ["--teacher", next(iter(params["teachers"]))]
    before = (["data"], ["teacher", *teacher], ["cache", *teacher], ["pair", "--pair", pair(bench)])
    students = (run(bench, stage, method, "0-1") for method in ("ce", "kd") for stage in ("distill", "evaluate"))
    stages(bench, *before, *students)
    process, _ = start(bench, "wild", "0-1")
    process.communicate(timeout=600)
    assert process.returncode
    for path in (bench.root / AT.checkpoint(pair(bench), "wild", "0")).parent.glob("*"):
        path.unlink()  # of its first step, which was sound
    yield bench
    bench.params = params


def test_nothing_has_been_run(untouched: tuple[Workbench, str]) -> None:
    _, text = untouched
    assert "digits: 0 of 11 jobs done" in text
    assert re.search(r"^distill +3 +3 +6 runs$", text, re.MULTILINE)
    assert "remaining: not known yet" in text
    assert "failed:" not in text


def test_the_jobs_are_those_of_the_engines(bench: Workbench) -> None:
    listed = bench.run("snakemake", "--summary", "--cores", "1").stdout.splitlines()[1:]
    outputs = {str(path) for s in states(bench).values() for path in s.job.outputs.values()}
    assert {line.split("\t")[0] for line in listed} == outputs


def test_done_and_failed(bench: Workbench) -> None:
    found = states(bench)
    assert {name for name, s in found.items() if s.state == FAILED} == {"distill wild 0-1"}
    assert {name for name, s in found.items() if s.state == TODO} == {"evaluate wild 0-1", "tables"}
    assert not [s for s in found.values() if s.state not in (DONE, FAILED, TODO)]
    text = said(bench)
    line = next(line for line in text.splitlines() if f"distill {pair(bench)} wild 0-1: " in line)
    assert "0-1: distillery: the training loss is " in line
    assert line.endswith(f"({AT.log('distill', pair(bench), 'wild', '0-1')})")
    assert "remaining: about" in text
    assert "not counting 1 tables" in text
    assert "\x1b" not in text


def test_snakemake_ends_with_the_failures_of_its_own_run(bench: Workbench) -> None:
    here = Path.cwd()
    os.chdir(bench.root)
    try:
        plan, began = current()[1], (bench.root / AT.log("distill", pair(bench), "wild", "0-1")).stat().st_mtime
        first, line = failures(plan, began - 1)
        assert first == "1 job(s) failed:" and "wild 0-1: distillery: the training loss is " in line
        (line,) = failures(plan, began + 1)
        assert line.startswith("1 job(s) of earlier runs failed or were stopped")
    finally:
        os.chdir(here)


def test_stale(bench: Workbench) -> None:
    """An edited parameter and edited code concern the jobs that the engines would run again, and no others."""
    params, code = bench.params, bench.root / "src/distillery/objectives/ce.py"
    kept = code.read_text()
    try:
        bench.params = params | {"methods": params["methods"] | {"kd": params["methods"]["kd"] | {"temperature": 2.0}}}
        found = states(bench)
        assert {name for name, s in found.items() if s.state == STALE} == {"distill kd 0-1", "evaluate kd 0-1"}
        text = said(bench)
        assert "distill: 1, methods.kd.temperature changed" in text
        assert "evaluate: 1, methods.kd.temperature changed" in text
        bench.params = params
        code.write_text(kept + "\n# a comment changes no result\n")
        assert "stale" not in said(bench).partition("total")[2]
        code.write_text(kept + "\nEDITED = True\n")
        lines = said(bench).partition("stale:\n")[2].splitlines()
        assert lines[:7] == [
            "  teacher: 1, its code changed",  # which is trained with ce.py
            "  cache: 1, made from a stale teacher",
            "  pair: 1, made from a stale teacher",
            "  distill: 1, its code changed",
            "  distill: 1, made from a stale pair",
            "  evaluate: 1, its code changed",
            "  evaluate: 1, made from a stale pair",
        ]
    finally:
        bench.params = params
        code.write_text(kept)
    assert states(bench)["distill kd 0-1"].state == DONE


def test_a_changed_input_is_noticed_by_its_content(bench: Workbench) -> None:
    name = AT.run_record(pair(bench), "ce", "0-1")
    made = bench.root / name
    kept = made.read_text()
    made.touch()  # as `dvc checkout` does
    assert states(bench)["evaluate ce 0-1"].state == DONE
    made.write_text(kept + "\n")
    assert states(bench)["evaluate ce 0-1"].why == f"{name} changed"
    made.write_text(kept)


def test_removed_outputs_are_to_do_and_not_failed(bench: Workbench) -> None:
    made, log = (
        bench.root / AT.metrics(pair(bench), "ce", "0-1"),
        bench.root / AT.log("evaluate", pair(bench), "ce", "0-1"),
    )
    content = made.read_bytes()
    log.parent.mkdir(parents=True)
    log.write_text("said while it was made\n")
    os.utime(log, (made.stat().st_mtime - 1,) * 2)
    made.unlink()
    assert states(bench)["evaluate ce 0-1"].state == TODO
    log.write_text("said by a later attempt\n")
    assert states(bench)["evaluate ce 0-1"].why == "said by a later attempt"
    log.unlink()
    made.write_bytes(content)


def test_running_then_killed_then_finished(bench: Workbench) -> None:
    students = bench.root / AT.students(pair(bench), "kd", "0-1")
    students.unlink()
    process, log = start(bench, "kd", "0-1")
    try:
        wait(log.exists, process, every=0.001)
        os.killpg(process.pid, signal.SIGSTOP)  # while it imports torch: no lock yet
        assert not students.with_name(f".{students.name}.lock").exists()
        assert states(bench)["distill kd 0-1"].state == RUNNING
        assert f"distill {pair(bench)} kd 0-1: starting" in said(bench)
        checkpoint = AT.checkpoint(pair(bench), "kd", "0")
        bench.pause(checkpoint)
        os.killpg(process.pid, signal.SIGCONT)
        wait(lambda: bench.paused(checkpoint), process)
        status = states(bench)["distill kd 0-1"]
        assert (status.state, status.host) == (RUNNING, HOST)
        assert states(bench)["evaluate kd 0-1"].why == "its distill is being made again"
        shown = rf"kd 0-1: run [12]/2, epoch \d/6 for .* \(since \d\d:\d\d\) on {re.escape(HOST)}\n"
        assert re.search(shown, said(bench))
    finally:
        end(process)
    status = states(bench)["distill kd 0-1"]
    assert status.state == FAILED
    assert status.why.startswith(f"killed (process {process.pid} on {HOST}); {pair(bench)} kd seed ")
    assert status.why.endswith("[continues from its checkpoint]")
    process, log = start(bench, "kd", "0-1")
    while process.poll() is None:  # asking disturbs nobody, also not in the moment of locking
        assert states(bench)["distill kd 0-1"].state in (RUNNING, FAILED, DONE)
        time.sleep(0.02)
    assert process.returncode == 0, log.read_text()
    assert states(bench)["distill kd 0-1"].state == DONE


def test_a_job_on_another_machine(bench: Workbench) -> None:
    """Only its lock file and its log are seen: it runs while they are fresh."""
    students, log = AT.students(pair(bench), "wild", "0-1"), bench.root / AT.log("distill", pair(bench), "wild", "0-1")
    lock, kept = (bench.root / students).with_name(f".{students.name}.lock"), log.read_text()
    try:
        lock.write_text("process 17 on node0815.example")
        log.write_text(f"{pair(bench)} wild seed 1: epoch 3/6  loss 1.0\n")
        assert re.search(r"wild 0-1: run 2/2, epoch 3/6 for \d+ s \(.*\) on node0815.example\n", said(bench))
        lock.write_text("process 17 on node0815.example, Slurm job 12")  # which is not in the queue, if there is one
        assert re.search(r"wild 0-1: .* on node0815.example\n", said(bench, SLURM_CONF="/nowhere"))
        for path in (lock, log):
            os.utime(path, (time.time() - 7200,) * 2)
        assert states(bench)["distill wild 0-1"].why.startswith("killed (process 17 on node0815.example)")
    finally:
        log.write_text(kept)
        lock.unlink()


def test_in_slurms_queue(bench: Workbench, slurm: SlurmCluster) -> None:
    """Waiting for a GPU, running on one, and cancelled there."""
    environment = {"SLURM_CONF": slurm.env["SLURM_CONF"], "PATH": f"{slurm.root}/bin:{bench.env()['PATH']}"}
    params = bench.params
    slow = {"objective": "kd", "recipe": {"epochs": 20_000}}  # ends when it is told to
    methods = {k: params["methods"][k] for k in ("ce", "kd")} | {"slow": slow}
    bench.params = params | {"methods": methods, "seeds": ["0-1", 3]}
    blocker = slurm.run("sbatch", "--parsable", "--gres=gpu:4", "--output=/dev/null", "--wrap=sleep 6000").strip()
    slurm.wait(lambda: slurm.jobs("R"), "the job that holds all GPUs")
    options = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1", "--retries", "0")
    targets = [str(AT.students(pair(bench), method, "3")) for method in ("ce", "slow")]
    process = bench.start("snakemake", "--profile", "slurm", *options, "--", *targets, **environment)
    name = f"distill {pair(bench)} slow 3"
    try:
        wait(lambda: len(slurm.jobs("PD")) == 2, process, every=0.2)
        slurm.wait(lambda: "None" not in slurm.run("squeue", "-h", "-t", "PD", "-o", "%r"), "the scheduler's verdict")
        text = said(bench, **environment)
        assert re.search(r"^distill +2 +2 +2 +6 +9 runs$", text, re.MULTILINE), text
        assert re.search(r"waiting for: .*(Resources|Priority)", text)
        os.kill(slurm.daemons["slurmctld"].pid, signal.SIGSTOP)  # a controller that does not answer
        try:
            assert "waiting" not in said(bench, **environment)
        finally:
            os.kill(slurm.daemons["slurmctld"].pid, signal.SIGCONT)
        slurm.run("scancel", blocker)
        wait(lambda: re.search(rf"{name}: epoch \d+/20000 for .* on {HOST}", said(bench, **environment)), process)
        slurm.run("scancel", *slurm.jobs("R"))
        shown = rf"{name}: (JOB|STEP) \d+.*CANCELLED.*; before that: stopped in epoch \d+ of 20000"
        slurm.wait(lambda: re.search(shown, said(bench, **environment)), "why it stopped")
        [log] = bench.root.glob(f".snakemake/slurm_logs/rule_distill/{pair(bench)}_slow_3/*.log")
        with log.open("a") as file:  # Snakemake goes on about a failed job, at length
            file.write("    input: src/distillery/study.py\n" * 1000)
        assert re.search(shown, said(bench, **environment))
    finally:
        bench.params = params
        end(process, signal.SIGINT)
        slurm.run("scancel", f"--user={os.getuid()}")


def test_everything_is_done(bench: Workbench) -> None:
    params = bench.params
    bench.params = params | {"methods": {k: params["methods"][k] for k in ("ce", "kd")}}
    stages(bench, run(bench, "evaluate", "kd", "0-1"), ["tables"])
    assert {s.state for s in states(bench).values()} == {DONE}
    text = said(bench)
    assert "digits: 9 of 9 jobs done" in text
    assert "remaining: nothing is left to do" in text
    assert WAITING not in text
