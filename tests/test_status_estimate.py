"""The rest of a study, judged by what is finished; and looking at locks without holding them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from rich.console import Console

from distillery.pipeline import internals
from distillery.pipeline.check import load
from distillery.pipeline.job import Job
from distillery.pipeline.planner import current, resolve
from distillery.records.io import lock, write_json
from distillery.records.schema import RunRecord
from distillery.status.locks import holder
from distillery.status.remaining import remaining, sentence, words
from distillery.status.show import show
from distillery.status.slurm import Queue, ask
from distillery.status.states import DONE, FAILED, RUNNING, TODO, Standing, Status
from distillery.study.model import Study

PAIRS = {
    "small": {"teacher": "a", "student": "resnet8_w4"},
    "large": {"teacher": ["a", "b"], "student": "resnet20_w8"},  # an ensemble of a trained and a fetched teacher
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["recipe"] |= {"epochs": 10, "milestones": [5], "test_every": 1}
    params["teachers"] = {
        "a": {"architecture": "resnet20_w8"},
        "b": {"architecture": "resnet20_w8", "source": "fetch", "urls": ["teacher.pth"], "sha256": "0" * 64},
        "unused": {"architecture": "resnet20_w8"},
    }
    params["pairs"] = PAIRS
    params["methods"] = {m: params["methods"][m] for m in ("ce", "kd", "dkd")}
    params["methods"]["dkd"]["recipe"] = {"epochs": 20}
    params["seeds"], params["tables"]["baseline"] = ["0-4"], "ce"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    return load()


def standing(study: Study, seconds: dict[str, float], **states: str) -> Standing:
    """Everything is to do but what took so many seconds, and what is said."""
    statuses = []
    for job in resolve(study):
        state = DONE if job.name in seconds else states.get(job.stage, TODO)
        if job.name in seconds:
            job.provenance.parent.mkdir(parents=True, exist_ok=True)
            job.provenance.write_text(json.dumps({"wall_seconds": seconds[job.name]}))
        statuses.append(Status(job, state))
    return Standing(statuses, Queue())


def test_every_process_has_to_start(study: Study) -> None:
    known = {"distill small ce 0-4": 100.0, "evaluate small ce 0-4": 0.5, "tables": 1.0}
    found, begun = standing(study, known), standing(study, known, distill=RUNNING)
    before = remaining(found, study, 0.0)
    for note in Path("artifacts").rglob("*.json"):
        if "wall_seconds" in (facts := json.loads(note.read_text())):
            note.write_text(json.dumps(facts | {"start_seconds": 3.0}))
    todo = sum(status.state == TODO for status in found.statuses) - sum(before.unknown.values())
    assert todo == 10 and remaining(found, study, 0.0).work == pytest.approx(before.work + 3.0 * todo)
    assert remaining(begun, study, 0.0).work < remaining(found, study, 0.0).work - 3.0


def test_jobs_of_an_ensemble(study: Study) -> None:
    plan = resolve(study)
    needed = {job.name for job in plan.needs(plan.job("pair", pair="large"))}
    assert needed == {"teacher a", "cache a", "teacher b", "cache b"}
    names = {job.name for job in plan}
    assert "teacher unused" not in names  # no pair asks for it, so no engine trains it
    assert plan.job("distill", pair="large", method="kd", seed="0-4").seeds == (0, 1, 2, 3, 4)
    assert all(needed.name in names for job in plan for needed in plan.needs(job))


def test_nothing_finished(study: Study) -> None:
    left = remaining(standing(study, {}), study, time.time())
    assert left.work == 0
    assert left.unknown["distill"] == 6
    assert sentence(left) == "not known yet: nothing like the rest has finished"


def test_the_same_cell_then_the_same_pair_then_the_study(study: Study) -> None:
    """Known: ce and kd of the small pair, ce of the large one. kd takes 1.5 times the median of its pair; dkd, which
    never ran, trains for twice as many epochs."""
    seconds = {"distill small ce 0-4": 50.0, "distill small kd 0-4": 150.0, "distill large ce 0-4": 400.0}
    found = standing(study, seconds)
    only = Standing([s for s in found.statuses if s.job.stage == "distill"], Queue())
    left = remaining(only, study, time.time())
    small, large = 2 * 100.0, (400 * 150 / 100) + 2 * 400
    assert left.work == pytest.approx(small + large)
    assert not left.unknown
    one = remaining(Standing([s for s in only.statuses if "dkd" not in s.job.name], Queue()), study, time.time())
    assert one.work == pytest.approx(600)
    assert one.clock == one.work
    assert sentence(one) == "about 10 min, one at a time"


def test_running_jobs_count_by_what_is_left_of_them(study: Study) -> None:
    seconds = {"distill small ce 0-4": 100.0, "distill large ce 0-4": 100.0}
    statuses = [s for s in standing(study, seconds).statuses if s.job.stage == "distill" and "dkd" not in s.job.name]
    now = time.time()
    half, begun = (
        Status(statuses[1].job, RUNNING, fraction=0.5, progress="run 3/5"),
        Status(statuses[3].job, RUNNING, since=now - 40),
    )
    left = remaining(Standing([statuses[0], half, statuses[2], begun], Queue()), study, now)
    assert left.work == pytest.approx(50 + 60)
    assert (left.at_once, left.clock) == (2, pytest.approx(60))  # no sooner than the longest one
    assert sentence(left) == "about 60 s with 2 at once; 2 min of work"


def test_a_continued_job_is_judged_by_the_epochs_of_its_last_start(study: Study) -> None:
    found = standing(study, {"distill small ce 0-4": 30.0})
    cell = next(s for s in found.of(DONE))
    cell.job.provenance.write_text(json.dumps({"wall_seconds": 30.0, "epoch_seconds": {"seed 4": [3.0] * 10}}))
    again = Standing([cell, Status(cell.job, FAILED)], Queue())
    assert remaining(again, study, time.time()).work == pytest.approx(5 * 30)


def test_a_fetched_teacher_says_nothing_about_a_trained_one(study: Study) -> None:
    found = standing(study, {"teacher b": 3.0}).statuses
    both = [s for s in found if s.job.stage == "teacher"]
    left = remaining(Standing(both, Queue()), study, time.time())
    assert left.unknown == {"teacher": 1}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (600, "10 min"), (7800, "2 h 10 min"), (7200, "2 h"), (273600, "3 days 4 h"), (0.4, "0 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert words(seconds) == text


def _lock_often(path: Path, begun: Any, failed: Any) -> None:
    begun.set()
    try:
        for _ in range(300):
            path.with_name(f".{path.name}.lock").touch()  # left behind by a process that was killed
            time.sleep(0.0005)
            with lock(path):
                time.sleep(0.0005)
    except BaseException:
        failed.set()
        raise


def test_looking_never_takes_the_lock(tmp_path: Path) -> None:
    """Whoever locks while somebody looks must get the lock, every time."""
    context = multiprocessing.get_context("spawn")
    begun, failed = context.Event(), context.Event()
    process = context.Process(target=_lock_often, args=(tmp_path / "output", begun, failed))
    process.start()
    begun.wait(600)
    seen = 0
    while process.is_alive():
        held = holder(tmp_path / "output")
        seen += bool(held and held.alive and held.pid == process.pid)
    process.join()
    assert not failed.is_set()
    assert seen


PROGRAM = """
import sys
from collections import Counter

opened = Counter()
sys.addaudithook(lambda event, args: opened.update([str(args[0])]) if event == "open" else None)
from distillery.cli import app

app(["status"], standalone_mode=False)
print("torch" in sys.modules, max(n for name, n in opened.items() if name.endswith("runs.json")))
"""


@pytest.mark.slow
def test_two_thousand_runs_at_a_glance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record is compared with the plan, and read hardly more than once; and torch is not imported for it."""
    monkeypatch.chdir(tmp_path)
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    teacher = next(iter(params["teachers"]))
    params["pairs"] = {f"p{i}": {"teacher": teacher, "student": "resnet8_w4"} for i in range(20)}
    names = list(params["methods"])
    # a label each: two rows of one name are refused
    params["methods"] = {
        f"m{i}": params["methods"][names[i % len(names)]] | {"label": f"method {i}"} for i in range(20)
    }
    params["seeds"], params["tables"]["baseline"] = [0, 1, 2, 3, 4], "m0"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    _, plan = current(write=True)
    for job in plan:
        if job.stage == "distill":
            for path in (*job.outputs.values(), job.provenance):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            write_json(job.record, trained(job), sort=False)
            job.provenance.write_text('{"wall_seconds": 3600.0}')
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    imported, most = done.stdout.split()[-2:]
    assert imported == "False"
    assert int(most) <= 2, done.stdout  # once by the judge, and for a sample of each cell once by the estimate
    assert "distill: 2000, its data is missing" in done.stdout
    assert "2,000 GPU-hours" in done.stdout


def trained(job: Job) -> dict[str, Any]:
    """The record of a run on a GPU whose weights and history are empty files."""
    nothing = {"sha256": hashlib.sha256().hexdigest(), "bytes": 0}
    outputs = {str(path): nothing for name, path in job.outputs.items() if name != "record"}
    record = RunRecord(
        spec=job.spec,
        spec_sha256=job.sha256,
        inputs={},
        outputs=outputs,
        environment={},
        architecture="resnet8_w4",
        teachers=[],
        teacher_outputs="none",
        objective={},
        recipe={},
        parameters=1,
        extra_parameters=0,
        images_seen=1,
        device="cuda",
        threads=1,
        ranks=1,
        seeds=list(job.seeds),
    )
    return record.model_dump()


# --- asking Slurm -----------------------------------------------------------------------------------------------------


def squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Put a squeue first in PATH that says this."""
    program = folder / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "".join(f"{line}\n" for line in lines) + "END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_whose_the_entries_of_the_queue_are(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their comments, the jobs of an array by Snakemake's marker of an output; other folders' are left out."""
    plan = resolve(study)
    alone, second = (plan.job("distill", pair="small", method=m, seed="0-4") for m in ("ce", "kd"))
    comment = "rule_distill_wildcards_small_ce_0-4"
    marker = base64.urlsafe_b64encode(str(second.outputs["record"]).encode()).decode()
    path = internals.MARKERS / f"@{marker[:9]}" / marker[9:]
    path.parent.mkdir(parents=True)
    path.write_text('{"external_jobid": "7_2"}')
    squeue(
        tmp_path,
        monkeypatch,
        f"5|5|RUNNING|n1|None|a-run|{tmp_path}|{comment}",
        f"7_1|7|PENDING||Priority|a-run|{tmp_path}|{comment}",
        f"7_2|8|PENDING||Resources|a-run|{tmp_path}|{comment}",
        f"9|9|PENDING||Priority|a-run|/elsewhere|{comment}",
        f"10|10|PENDING||Priority|a-run|{tmp_path}|something else",
    )
    queue = ask(plan.jobs)
    assert queue.answered and not queue.silent
    found = queue.of(alone), queue.of(second)
    assert [entry and entry.number for entry in found] == ["5", "7_2"]
    assert queue.unnamed == 1
    assert queue.at_work == {"5"}


def test_an_unknown_snakemake_is_said_and_nothing_asked(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(tmp_path, monkeypatch, f"5|5|RUNNING|n1|None|a-run|{tmp_path}|rule_data")
    versions = {"snakemake": "9.99.1", "snakemake-executor-plugin-slurm": "3.0.0"}
    monkeypatch.setattr(internals, "version", versions.__getitem__)
    console = Console(file=io.StringIO(), width=200)
    show(study, resolve(study), console=console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Slurm is not asked: snakemake-executor-plugin-slurm is 3.0.0, and only 2.x is known here\n" in said
    assert "jobs done" in said
    versions["snakemake-executor-plugin-slurm"] = "2.0.0"
    assert ask(resolve(study).jobs).answered


@pytest.mark.parametrize("width", [80, 44, 30])
def test_no_word_of_the_table_is_cut_on_a_narrow_terminal(width: int, study: Study) -> None:
    console = Console(file=io.StringIO(), width=width)
    show(study, resolve(study), console=console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in said and "evaluate" in said and "to do" in said
    assert ("failed" in said) == (width == 80)
