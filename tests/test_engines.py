"""Snakemake and DVC, run for real on a tiny digits study. What an edit makes due in both: test_edits.py."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from workbench import Workbench

from distillery.pipeline.internals import LOCKS, WAITING
from distillery.pipeline.layout import Layout
from distillery.records.io import sha256_file

pytestmark = pytest.mark.slow
RESULTS = ("table.md", "table.csv", "table.tex", "summary.json", "report.html", "ledger.csv")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    bench = Workbench(tmp_path)
    bench.tiny()
    return bench


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A study with several teachers, which Snakemake made from nothing. Tests work on copies of it."""
    bench = Workbench(tmp_path_factory.mktemp("finished"))
    bench.tiny(epochs=4)
    params = bench.params
    teacher = next(iter(params["teachers"]))
    params["teachers"]["other"] = params["teachers"][teacher] | {"seed": 1}
    params["pairs"] = {"both": {"teacher": [teacher, "other"], "student": "resnet8_w2"}}
    params["methods"] = {"ce": params["methods"]["ce"], "ensemble": {"objective": "ensemble"}}
    bench.params = params
    assert "total" in bench.run("snakemake", "-n").stdout
    bench.run("snakemake", "--cores", "2")
    return bench


def outputs(bench: Workbench) -> dict[str, str]:
    """Hash of every declared output that is a file."""
    stages = yaml.safe_load((bench.root / "dvc.lock").read_text())["stages"]
    names = sorted(out["path"] for stage in stages.values() for out in stage.get("outs", ()))
    return {name: sha256_file(bench.root / name) for name in names if not (bench.root / name).is_dir()}


def snakemake_jobs(bench: Workbench) -> dict[str, tuple[set[str], set[str]]]:
    """Spec -> (outputs, inputs) of every job, from Snakemake's own dry run."""
    plan = bench.run("snakemake", "--dry-run", "--quiet", "host", "--forceall", "--nolock", "--cores", "1").stdout
    jobs, read = {}, set()
    for line in plan.splitlines():
        name, _, files = line.strip().partition(": ")
        if name == "input":
            read = set(files.split(", "))
        elif name == "output" and (specs := [file for file in read if "/specs/" in file]):
            jobs[specs[0]] = (set(files.split(", ")), read)
    return jobs


def dvc_stages(bench: Workbench) -> Iterator[tuple[str, set[str], set[str]]]:
    """(spec, outputs, dependencies) of every stage, from DVC's own index."""
    with Repo(str(bench.root)) as repo:
        for stage in repo.index.stages:
            if stage.name != "plan":
                yield stage.cmd.split()[-1], {o.def_path for o in stage.outs}, {d.def_path for d in stage.deps}


def test_both_engines_plan_the_same_jobs(bench: Workbench) -> None:
    """Same specs and outputs; every Snakemake input is a DVC dependency or lies in one. Also with several teachers."""
    bench.tiny(methods=("ce", "kd", "kd_ls"), seeds=(0, "1-2"))
    params = bench.params
    teacher = next(iter(params["teachers"]))
    params["teachers"]["other"] = params["teachers"][teacher] | {"seed": 1}
    params["pairs"]["both"] = {"teacher": [teacher, "other"], "student": "resnet8_w2"}
    params["methods"] = {"ce": params["methods"]["ce"], "ensemble": {"objective": "ensemble"}}
    bench.params = params
    left = snakemake_jobs(bench)
    right = {spec: rest for spec, *rest in dvc_stages(bench)}
    assert left.keys() == right.keys()
    assert len(left) == 1 + 2 * 2 + 2 + 2 * 2 * 2 * 2 + 1
    for spec, (made, read) in left.items():
        outs, deps = right[spec]
        assert made == outs, spec
        due = {file for file in read if file.endswith("/due")}  # Snakemake's own, see pipeline/snakemake.py
        loose = {r for r in read - due if not any(r == d or r.startswith(f"{d}/") for d in deps)}
        assert not loose, (spec, loose)


def test_from_nothing_to_tables_and_back(finished: Workbench, tmp_path: Path) -> None:
    """Snakemake finds nothing to do in the study that it finished; so does DVC."""
    bench = finished.copy(tmp_path)
    for name in RESULTS:
        assert (bench.root / "results" / "digits" / name).stat().st_size
    again = bench.run("snakemake", "--cores", "2")
    assert "Nothing to be done" in again.stdout + again.stderr
    bench.run("distillery", "record")
    assert unchanged(bench)


def unchanged(bench: Workbench) -> bool:
    """Whether `dvc status` names no stage but `plan`, which always runs."""
    return set(json.loads(bench.run("dvc", "status", "--json").stdout)) <= {"plan"}


def test_dvc_reproduces_bit_for_bit(bench: Workbench) -> None:
    bench.tiny(epochs=6)  # long enough for a temperature to matter
    bench.run("dvc", "repro")
    bench.git("add", "-A")
    bench.git("commit", "-qm", "results")
    bench.run("dvc", "repro")
    assert unchanged(bench)
    first, lock = outputs(bench), (bench.root / "dvc.lock").read_text()
    assert len(first) > 10
    bench.run("dvc", "repro", "--force")
    assert outputs(bench) == first
    assert (bench.root / "dvc.lock").read_text() == lock

    ran = bench.run("dvc", "exp", "run", "-n", "cooler", "-S", "methods.kd.temperature=2").stdout
    executed = set(re.findall(r"Running stage '([^']+)'", ran))
    pair = next(iter(bench.params["pairs"]))
    assert executed == {"plan", f"distill@{pair}-kd-0", f"evaluate@{pair}-kd-0", "tables"}
    assert "cooler" in bench.run("dvc", "exp", "show", "--md").stdout
    assert "methods.kd.temperature" in bench.run("dvc", "params", "diff").stdout
    assert bench.run("dvc", "metrics", "diff").stdout.strip()

    bench.run("dvc", "push")
    bench.run("dvc", "exp", "apply", "cooler")
    kept = outputs(bench)
    bench.run("rm", "-rf", "artifacts", ".dvc/cache")
    bench.run("dvc", "pull", check=False)
    bench.run("dvc", "exp", "run", "-n", "again")  # the tables are in git; what the push held came back
    assert outputs(bench) == kept


def test_interrupted_and_run_again(finished: Workbench, tmp_path: Path) -> None:
    """SIGTERM in the middle, which is as good as Ctrl-C: the job saves its state, and Snakemake ends. Then the same
    command: it continues and ends with the same students."""
    bench = finished.copy(tmp_path)
    students = sorted(bench.root.glob("artifacts/digits/runs/**/students.safetensors"))
    first = {p: sha256_file(p) for p in students}
    bench.run("rm", "-rf", *(f"artifacts/digits/{name}" for name in ("runs", "metrics", "logs")), "results/digits")
    process = bench.start("snakemake", "--cores", "1")
    deadline = time.monotonic() + 600
    while not list(bench.root.glob("artifacts/digits/logs/distill/**/*.log")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=600)[0]
    assert process.returncode and "stopped distill" in said, said
    assert "1 job(s) stopped:" in said and "job(s) failed" not in said, said  # Snakemake ends in order
    locks = bench.root / ".snakemake" / "locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("artifacts/digits/data/data.json\n")  # as if it had been killed
    locked = bench.run("snakemake", "--cores", "2", "--quiet", "all", check=False)
    assert locked.returncode == 1 and "or was killed here: if none runs, `snakemake --unlock`" in locked.stderr
    bench.run("snakemake", "--unlock")
    bench.run("snakemake", "--cores", "2", "--rerun-incomplete")
    assert {p: sha256_file(p) for p in students} == first


def caught(bench: Workbench, checkpoint: Path, process: subprocess.Popen[Any]) -> int:
    """The job that was asked to stop in the middle of its work, when it has."""
    deadline = time.monotonic() + 600
    while not (job := bench.paused(checkpoint)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return job


@pytest.mark.parametrize("send", [os.killpg, os.kill])
def test_ctrl_c_again_and_again(finished: Workbench, tmp_path: Path, send: Callable[[int, int], None]) -> None:
    """To all processes, as a terminal sends it, or to Snakemake alone. The job, which is busy, is waited for."""
    bench = finished.copy(tmp_path)
    bench.run("rm", "-rf", *(f"artifacts/digits/{name}" for name in ("runs", "metrics", "logs")), "results/digits")
    at, cell = Layout("digits"), ("both", "ensemble", "0")
    bench.pause(at.checkpoint(*cell))
    process = bench.start("snakemake", "--cores", "1", str(at.students(*cell)), **bench.pausing())
    job, deadline = caught(bench, at.checkpoint(*cell), process), time.monotonic() + 600
    assert process.stdout
    said, out = "", process.stdout.fileno()
    while WAITING not in said and process.poll() is None and time.monotonic() < deadline:
        send(process.pid, signal.SIGINT)
        if select.select([out], [], [], 0.3)[0]:
            said += os.read(out, 1 << 16).decode()
    os.kill(job, signal.SIGCONT)
    said += process.communicate(timeout=600)[0]
    assert process.returncode == 1 and "Traceback" not in said and WAITING in said, said
    assert "both ensemble 0: stopped in epoch" in said and "the state is saved" in said, said
    assert not list((bench.root / LOCKS).glob("*"))


def pending(process: int, number: int) -> bool:
    """Whether a signal waits for a process that is stopped."""
    sent = re.search(r"^ShdPnd:\s*(\w+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return bool(sent and int(sent[1], 16) >> (number - 1) & 1)


def test_a_terminal_is_closed(finished: Workbench, tmp_path: Path) -> None:
    """As when a connection is lost: Snakemake and its job leave in order, though nothing can be printed any more."""
    bench, at, cell = finished.copy(tmp_path), Layout("digits"), ("both", "ensemble", "0")
    bench.run("rm", "-rf", *(f"artifacts/digits/{name}" for name in ("runs", "metrics", "logs")), "results/digits")
    bench.pause(at.checkpoint(*cell))
    ours, theirs = os.openpty()
    command = ("setsid", "--ctty", "snakemake", "--cores", "1", str(at.students(*cell)))
    keys = {"cwd": bench.root, "env": bench.env() | bench.pausing()}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, **keys)
    os.close(theirs)
    job, deadline = caught(bench, at.checkpoint(*cell), process), time.monotonic() + 600
    os.close(ours)
    while not pending(job, signal.SIGHUP) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(job, signal.SIGCONT)
    assert process.wait(600) == 1
    log = (bench.root / at.log("distill", *cell)).read_text()
    assert "by SIGHUP (the terminal was closed): the state is saved" in log.splitlines()[-1]
    assert not list((bench.root / LOCKS).glob("*"))


MINE = """from torch import Tensor

from distillery.api import Batch, Objective, Positive, kl_rows


class Mine(Objective):
    needs = frozenset({"logits", "teachers"})

    class Config(Objective.Config):
        temperature: Positive = 4.0

    config: Config

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = self.logits(batch.student.logits, batch.teachers[1].logits, batch.labels)
        return {"mine": kl_rows(student, teacher, self.config.temperature).mean()}
"""


def test_a_new_method_is_one_file_and_one_block(finished: Workbench, tmp_path: Path) -> None:
    bench = finished.copy(tmp_path)
    students = {p: p.stat().st_mtime_ns for p in bench.root.glob("artifacts/digits/runs/**/students.safetensors")}
    (bench.root / "mine.py").write_text(MINE)
    params = bench.params
    params["methods"]["mine"] = {"objective": "mine.py:Mine", "temperature": 2}
    bench.params = params
    bench.run("snakemake", "--cores", "2")
    assert {p: p.stat().st_mtime_ns for p in students} == students, "the other methods were trained again"
    assert "mine" in (bench.root / "results/digits/table.csv").read_text()
    (bench.root / "mine.py").write_text(MINE.replace("4.0", "5.0").replace(".mean()", ".sum()"))
    assert "methods.mine" not in (said := bench.run("distillery", "status").stdout)
    assert "distill: 1, its code changed" in said


def test_lint_and_slurm_profile_resolve(bench: Workbench) -> None:
    lint = bench.run("snakemake", "--lint", check=False)
    complaints = [
        line.strip()
        for line in (lint.stdout + lint.stderr).splitlines()
        if line.lstrip().startswith("* ") and "Specify a conda environment or container" not in line
    ]
    assert not complaints
    plan = bench.run("snakemake", "-n", "--profile", "slurm")
    assert "distill" in plan.stdout
