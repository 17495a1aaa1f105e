"""Several studies in one working copy: what Slurm and Snakemake left of one says nothing about another."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from synthetic_study import Synthetic, params

from distillery.pipeline.layout import Layout
from distillery.pipeline.planner import current
from distillery.status.slurm import ask
from distillery.status.states import FAILED, RUNNING, TODO, WAITING, Status, look

LOGS, RUNS, MARKERS = (Path(".snakemake") / name for name in ("slurm_logs", "log", "incomplete"))
JOB = ("a-b", "kd", "0-2")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that was never started, and no Slurm."""
    monkeypatch.chdir(tmp_path)
    Synthetic(tmp_path, params(study="fresh"))
    monkeypatch.setenv("PATH", "/nowhere")


def state() -> Status:
    found = look(current()[1]).statuses
    return next(s for s in found if s.job.name == f"distill {' '.join(JOB)}")


def students(study: str) -> Path:
    return Layout(study).students(*JOB)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


CANCELLED = "slurmstepd: error: *** JOB 7 ON node1 CANCELLED AT 2020-01-01T00:00:00 ***\n"


def run_log(study: str) -> str:
    """What Snakemake logs of a job that it submits."""
    said = f"SLURM run ID: kd_1234\nrule distill:\n    output: {students(study)}, x.json\n"
    return said + "Job 3 has been submitted with SLURM jobid 7 (log: /x/rule_distill/a-b_kd_0-2/7.log).\n"


@pytest.mark.parametrize("study", ["small", "fresh"])
def test_a_log_of_slurm_belongs_to_one_study(study: str) -> None:
    log = LOGS / "rule_distill" / "_".join(JOB) / "7.log"
    write(log, "x\n")
    assert state().state == TODO  # nobody knows whose it is
    write(log, f"rule distill:\n    output: {students(study)}\n{CANCELLED}")
    assert state().state == (FAILED if study == "fresh" else TODO)
    write(log, f"module: command not found\n{CANCELLED}")  # it died before Snakemake could name anything
    assert state().state == TODO
    write(RUNS / "a.snakemake.log", run_log("small").replace("jobid 7 ", "jobid 77 "))
    assert state().state == TODO
    write(RUNS / "b.snakemake.log", run_log(study))
    assert state().state == (FAILED if study == "fresh" else TODO)
    if study == "fresh":
        assert "CANCELLED" in state().why


def test_a_log_of_a_study_with_a_longer_name() -> None:
    write(LOGS / "rule_distill" / "_".join(JOB) / "7.log", f"output: other/{students('fresh')}\n")
    assert state().state == TODO


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A `squeue` that lists one job of this working copy in the given state."""
    comment = f"rule_distill_wildcards_{'_'.join(JOB)}"

    def put(state: str) -> None:
        script = tmp_path / "bin" / "squeue"
        write(script, f"#!/bin/sh\necho '7|7|{state}|node1|Resources|kd_1234|{tmp_path}|{comment}'\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")

    return put


def mark(output: Path, number: str | None) -> None:
    """As Snakemake marks an output in the making."""
    write(MARKERS / base64.urlsafe_b64encode(str(output).encode()).decode(), json.dumps({"external_jobid": number}))


@pytest.mark.parametrize("study", ["small", "fresh"])
def test_a_queued_job_belongs_to_one_study(queue: Callable[[str], None], study: str) -> None:
    for slurm, ours in (("PENDING", WAITING), ("RUNNING", RUNNING)):
        queue(slurm)
        assert state().state == ours  # by its comment alone, as far as anybody knows
    mark(students(study), "7")
    assert state().state == (RUNNING if study == "fresh" else TODO)
    mark(students(study), None)  # once it runs
    write(RUNS / "a.snakemake.log", run_log(study))
    assert state().state == (RUNNING if study == "fresh" else TODO)
    assert ask(current()[1].jobs).unnamed == 0


def test_what_a_log_says_of_other_parameters_is_no_failure_of_these() -> None:
    write(state().job.log, "distillery: the loss is not finite\n")
    assert state().state == FAILED
    study = yaml.safe_load(Path("params.yaml").read_text())
    study["methods"]["kd"]["temperature"] = 3.0
    Path("params.yaml").write_text(yaml.safe_dump(study))
    assert state().state == TODO, "the plan is yet to be written"
    current(write=True)
    assert state().state == TODO
    write(state().job.log, "distillery: the loss is not finite\n")
    assert state().state == FAILED
