"""`snakemake --profile slurm` on a real Slurm: what is submitted, with what, and what a shared job does for runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from slurm_cluster import SlurmCluster
from workbench import Workbench

from distillery.pipeline.layout import Layout
from distillery.records.io import read_json, sha256_file
from distillery.status.slurm import Queue

pytestmark = pytest.mark.slow
PAIR = "resnet20_w8-resnet8_w4"
AT = Layout("digits")
METHODS = ("ce", "kd", "kd_ls", "wttm", "dkd")
# All that a cluster of one quick node needs beside the profile as it is.
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5")


def snakemake(bench: Workbench, slurm: SlurmCluster, *options: str) -> subprocess.CompletedProcess[str]:
    return bench.run("snakemake", "--profile", "slurm", *QUICK, *options, check=False, **slurm.env)


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
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workbench, subprocess.Popen[str]]]:
    """The same students and more, trained without Slurm in the meantime."""
    bench = Workbench(tmp_path_factory.mktemp("local"))
    bench.tiny(methods=METHODS)
    wanted = [str(AT.students(PAIR, method, "0")) for method in METHODS]
    process = bench.start("snakemake", "--cores", "1", "--quiet", "all", "--", *wanted)
    yield bench, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, slurm: SlurmCluster, here: object) -> Finished:
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
    for path in AT.table_files().values():
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


def test_runs_that_share_a_job(
    study: Finished, slurm: SlurmCluster, here: tuple[Workbench, subprocess.Popen[str]]
) -> None:
    """Three new methods share a job and its GPU; one fails, the others finish, and only it is trained after repair."""
    bench = study.bench
    earlier = {method: provenance(bench, method) for method in ("ce", "kd")}
    params = bench.params
    params["methods"] = here[0].params["methods"]
    healthy = params["methods"]["dkd"]
    bench.params = params | {"methods": params["methods"] | {"dkd": healthy | {"recipe": {"lr": 1e30}}}}

    before = slurm.jobs()
    share = ("--group-components", "runs=3", "--retries", "0")
    failed = snakemake(bench, slurm, *share)
    assert failed.returncode == 1
    (number,) = set(slurm.jobs()) - set(before)
    job = facts(slurm, number)
    asked = (job["JobState"], job["JOB_GRES"], job["NumCPUs"], job["MinMemoryNode"])
    assert asked == ("FAILED", "gpu:1", "3", "24000M")
    assert "the training loss is" in (bench.root / AT.log("distill", PAIR, "dkd", "0")).read_text()
    assert not (bench.root / AT.students(PAIR, "dkd", "0")).exists()
    shared = {method: provenance(bench, method) for method in ("kd_ls", "wttm")}
    assert {made["slurm_job"] for made in shared.values()} == {number}
    (log,) = (bench.root / ".snakemake" / "slurm_logs").glob(f"group_*/{number}.log")
    first = re.split("^Finished jobid|^Error in rule", log.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
    assert first.count("localrule distill:") > 1, "one after the other"

    bench.params = params
    repaired = snakemake(bench, slurm, *share)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr + bench.logs()
    assert {method: provenance(bench, method) for method in ("ce", "kd", "kd_ls", "wttm")} == earlier | shared
    assert "DKD" in (bench.root / AT.table_files()["markdown"]).read_text()
    assert not (bench.root / AT.all_kept).exists(), "a forced run would not train"


def test_slurm_changes_no_bit(study: Finished, here: tuple[Workbench, subprocess.Popen[str]]) -> None:
    """All students, those of jobs of their own and those of shared jobs, equal the ones trained without Slurm."""
    bench, process = here
    said = process.communicate()[0]
    assert process.returncode == 0, said + bench.logs()
    assert set(students(bench)) == set(METHODS)
    assert students(study.bench) == students(bench)
