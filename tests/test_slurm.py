"""`snakemake --profile slurm` on a real Slurm: what is submitted, with what, and what becomes of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import SlurmCluster
from workbench import BEFORE, Workbench

from distillery.pipeline.layout import Layout
from distillery.records.io import read_json, sha256_file
from distillery.status.slurm import Queue

pytestmark = pytest.mark.slow
PAIR = "resnet20_w8-resnet8_w8"
AT = Layout("digits")
METHODS = ("ce", "kd")
# All that a cluster of one quick node needs beside the profile as it is.
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5")


def snakemake(bench: Workbench, slurm: SlurmCluster, *options: str) -> subprocess.CompletedProcess[str]:
    command = ("snakemake", "--profile", "slurm", "--quiet", "host", *QUICK)  # rules and their places are shown then
    return bench.run(*command, *options, check=False, **slurm.env)


def provenance(bench: Workbench, method: str) -> dict[str, Any]:
    return read_json(bench.root / AT.provenance(AT.students(PAIR, method, "0")))


def students(bench: Workbench) -> dict[str, str]:
    """Method -> hash of the student's weights."""
    found = (bench.root / AT.artifacts / "runs").glob("**/students.safetensors")
    return {path.parent.parent.name: sha256_file(path) for path in found}


@dataclass
class Finished:
    """A study that Slurm finished, what Snakemake said about it, and Slurm's jobs for it (number -> facts)."""

    bench: Workbench
    said: str
    jobs: dict[str, dict[str, str]]


def facts(slurm: SlurmCluster, job: str) -> dict[str, str]:
    return dict(re.findall(r"(\S+?)=(\S*)", slurm.run("scontrol", "show", "job", "-d", job)))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, slurm: SlurmCluster) -> Finished:
    bench = Workbench(tmp_path_factory.mktemp("slurm"))
    bench.tiny(methods=("ce", "kd"))
    before = slurm.jobs()
    done = snakemake(bench, slurm)
    assert done.returncode == 0, done.stdout + done.stderr + bench.logs()
    comments = {job: comment for job, comment in slurm.jobs().items() if job not in before}
    jobs = {job: facts(slurm, job) | {"comment": comment} for job, comment in comments.items()}
    return Finished(bench, done.stdout + done.stderr, jobs)


def test_stages_go_where_they_belong(study: Finished) -> None:
    """Training and what needs the teacher's network are jobs with one GPU each; light work never queues."""
    names = sorted(job["comment"] for job in study.jobs.values())
    runs = [f"{stage}_wildcards_{PAIR}_{method}_0" for stage in ("distill", "evaluate") for method in ("ce", "kd")]
    networks = [f"{stage}_wildcards_resnet20_w8" for stage in ("cache", "teacher")]
    assert names == sorted(f"rule_{name}" for name in [*runs, *networks])
    for job in study.jobs.values():
        assert job["JobState"] == "COMPLETED"
        assert job["JOB_GRES"] == "gpu:1"
        assert (job["Partition"], job["NumCPUs"], job["MinMemoryNode"]) == ("gpu", "1", "8000M")
    limits = {job["comment"].split("_")[1]: job["TimeLimit"] for job in study.jobs.values()}
    assert limits == {"teacher": "08:00:00", "cache": "01:00:00", "distill": "04:00:00", "evaluate": "00:30:00"}
    for stage in ("data", "pair", "tables"):
        assert re.search(rf"^localrule {stage}:", study.said, re.MULTILINE)


def test_results_logs_and_records_are_there(study: Finished) -> None:
    for path in AT.result_files().values():
        assert (study.bench.root / path).stat().st_size
    for number, job in study.jobs.items():
        stage, _, wildcards = job["comment"].removeprefix("rule_").partition("_wildcards_")
        kept = study.bench.root / ".snakemake" / "slurm_logs" / f"rule_{stage}" / wildcards / f"{number}.log"
        assert str(kept) in study.said, "Snakemake names the log"
        assert "Finished jobid" in kept.read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study.bench.root)
        runs = Queue().runs  # by which `distillery status` knows whose a job is
    assert {number for run in runs if "digits" in run.studies for number in run.numbers} >= set(study.jobs)
    assert {run.name for run in runs} >= {job["JobName"] for job in study.jobs.values()}
    for method in ("ce", "kd"):
        assert "epoch 2/2" in (study.bench.root / AT.log("distill", PAIR, method, "0")).read_text()
        number = provenance(study.bench, method)["slurm_job"]
        assert study.jobs[number]["comment"] == f"rule_distill_wildcards_{PAIR}_{method}_0"


def test_a_second_run_finds_nothing_to_do(study: Finished, slurm: SlurmCluster) -> None:
    before = slurm.jobs()
    done = snakemake(study.bench, slurm)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr
    assert slurm.jobs() == before


def test_slurm_changes_no_bit(study: Finished, tmp_path: Path) -> None:
    """All students equal the ones trained without Slurm."""
    bench = Workbench(tmp_path)
    bench.tiny(methods=METHODS)
    bench.make(*BEFORE, "distill")
    assert set(students(bench)) == set(METHODS)
    assert students(study.bench) == students(bench)


def test_an_edit_while_jobs_are_queued(study: Finished, slurm: SlurmCluster) -> None:
    """A job that would make something else refuses in one sentence; one that the edit does not concern runs as queued,
    also while params.yaml cannot even be read."""
    bench = study.bench
    params = bench.params
    bench.params = params | {"seeds": [0, 1]}
    blocker = slurm.run("sbatch", "--parsable", "--gres=gpu:4", "--output=/dev/null", "--wrap=sleep 6000").strip()
    slurm.wait(lambda: slurm.jobs("R"), "the job that holds all GPUs")
    targets = [str(AT.students(PAIR, method, "1")) for method in METHODS]
    process = bench.start("snakemake", "--profile", "slurm", *QUICK, "--retries", "0", "--", *targets, **slurm.env)
    try:
        slurm.wait(lambda: len(slurm.jobs("PD")) == 2 or process.poll() is not None, "two jobs in the queue")
        edited = params | {
            "seeds": [0, 1],
            "methods": params["methods"] | {"kd": {"objective": "kd", "temperature": 9.0}},
        }
        bench.params = edited
        due = bench.run("snakemake", "-n", "--quiet", "host", "--cores", "1").stdout
        assert f"{AT.run_record(PAIR, 'kd', '1')}" in due
        (bench.root / "params.yaml").write_text("study: [")
        slurm.run("scancel", blocker)
        said = process.communicate(timeout=1200)[0]
    finally:
        slurm.run("scancel", f"--user={os.getuid()}")
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1, said
    log = (bench.root / AT.log("distill", PAIR, "kd", "1")).read_text()
    assert log == (
        f"distillery: distill {PAIR} kd 1: the study or the code changed while this job was queued, and it would "
        "make something else: start the engine again\n"
    )
    assert not (bench.root / AT.students(PAIR, "kd", "1")).exists()
    bench.params = edited
    status = bench.run("distillery", "status").stdout
    assert re.search(r"^distill +2 +1 +1 +4 *$", status, re.MULTILINE), status  # done; failed: kd 1; stale: kd 0
    record = read_json(bench.root / AT.run_record(PAIR, "ce", "1"))
    assert record["spec"] == read_json(bench.root / AT.spec("distill", PAIR, "ce", "1"))


def test_a_refused_job_says_why(study: Finished, slurm: SlurmCluster) -> None:
    """Without `--quiet host`, as a user starts it."""
    bench = study.bench
    bench.params = bench.params | {"seeds": [2]}
    options = ("--retries", "0", "--default-resources", "slurm_partition=nowhere")
    done = bench.run("snakemake", "--profile", "slurm", *QUICK, *options, check=False, **slurm.env)
    assert done.returncode == 1
    reason = "Batch job submission failed: Invalid partition name specified"
    assert f"Slurm refused jobs ({reason}): correct the profile's lines marked <-" in done.stderr
    assert "failed without a message" in done.stderr
