"""The rest of a study, judged by what is finished; and looking at locks without holding them."""

from __future__ import annotations

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
from distillery.pipeline.jobs import Task, list_tasks
from distillery.records.current import Current

from distillery.records.io import lock
from distillery.status.locks import holder
from distillery.status.remaining import remaining, sentence, words
from distillery.status.slurm import Queue
from distillery.status.states import DONE, FAILED, RUNNING, TODO, Standing, Status
from distillery.study.model import Study
from distillery.study.reader import read_params

PAIRS = {
    "small": {"teacher": "a", "student": "resnet8_w4"},
    "large": {"teacher": ["a", "b"], "student": "resnet20_w8"},  # an ensemble of a trained and a fetched teacher
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["recipe"] |= {"epochs": 10, "milestones": [5]}
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
    return Study.load()


def standing(study: Study, seconds: dict[str, float], **states: str) -> Standing:
    """Everything is to do but what took so many seconds, and what is said."""
    statuses = []
    for task in list_tasks(study):
        state = DONE if task.name in seconds else states.get(task.stage, TODO)
        if task.name in seconds:
            task.provenance.parent.mkdir(parents=True, exist_ok=True)
            task.provenance.write_text(json.dumps({"wall_seconds": seconds[task.name]}))
        statuses.append(Status(task, state))
    return Standing(statuses, Queue())


def test_tasks_of_an_ensemble(study: Study) -> None:
    tasks: dict[str, Task] = {task.name: task for task in list_tasks(study)}
    assert tasks["pair large"].after == ("teacher a", "cache a", "teacher b", "cache b")
    assert "teacher unused" not in tasks  # no pair asks for it, so no engine trains it
    assert tasks["distill large kd 0-4"].seeds == (0, 1, 2, 3, 4)
    assert all(name in tasks for task in tasks.values() for name in task.after)


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
    only = Standing([s for s in found.statuses if s.task.stage == "distill"], Queue())
    left = remaining(only, study, time.time())
    small, large = 2 * 100.0, (400 * 150 / 100) + 2 * 400
    assert left.work == pytest.approx(small + large)
    assert not left.unknown
    one = remaining(Standing([s for s in only.statuses if "dkd" not in s.task.name], Queue()), study, time.time())
    assert one.work == pytest.approx(600)
    assert one.clock == one.work
    assert sentence(one) == "about 10 min, one at a time"


def test_running_jobs_count_by_what_is_left_of_them(study: Study) -> None:
    seconds = {"distill small ce 0-4": 100.0, "distill large ce 0-4": 100.0}
    statuses = [s for s in standing(study, seconds).statuses if s.task.stage == "distill" and "dkd" not in s.task.name]
    now = time.time()
    half, begun = (
        Status(statuses[1].task, RUNNING, fraction=0.5, progress="run 3/5"),
        Status(statuses[3].task, RUNNING, since=now - 40),
    )
    left = remaining(Standing([statuses[0], half, statuses[2], begun], Queue()), study, now)
    assert left.work == pytest.approx(50 + 60)
    assert (left.at_once, left.clock) == (2, pytest.approx(60))  # no sooner than the longest one
    assert sentence(left) == "about 60 s with 2 at once; 2 min of work"


def test_a_continued_job_is_judged_by_the_epochs_of_its_last_start(study: Study) -> None:
    found = standing(study, {"distill small ce 0-4": 30.0})
    cell = next(s for s in found.of(DONE))
    cell.task.provenance.write_text(json.dumps({"wall_seconds": 30.0, "epoch_seconds": {"seed 4": [3.0] * 10}}))
    again = Standing([cell, Status(cell.task, FAILED)], Queue())
    assert remaining(again, study, time.time()).work == pytest.approx(5 * 30)


def test_a_fetched_teacher_says_nothing_about_a_trained_one(study: Study) -> None:
    found = standing(study, {"teacher b": 3.0}).statuses
    both = [s for s in found if s.task.stage == "teacher"]
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
    context = multiprocessing.get_context("fork")
    begun, failed = context.Event(), context.Event()
    process = context.Process(target=_lock_often, args=(tmp_path / "output", begun, failed))
    process.start()
    begun.wait(60)
    seen = 0
    while process.is_alive():
        held = holder(tmp_path / "output")
        seen += bool(held and held.alive and held.pid == process.pid)
    process.join()
    assert not failed.is_set()
    assert seen


PROGRAM = """
import sys, time
from distillery.cli import app
app(["status"], standalone_mode=False)
print("torch" in sys.modules, time.process_time())
"""


@pytest.mark.slow
def test_two_thousand_runs_at_a_glance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of 240 epochs, each compared with the study; and torch is not imported for it."""
    monkeypatch.chdir(tmp_path)
    Path("src").symlink_to(ROOT / "src")
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    teacher = next(iter(params["teachers"]))
    params["recipe"]["epochs"] = 240
    params["pairs"] = {f"p{i}": {"teacher": teacher, "student": "resnet8_w4"} for i in range(20)}
    names = list(params["methods"])
    params["methods"] = {f"{names[i % len(names)]}_{i}": params["methods"][names[i % len(names)]] for i in range(20)}
    params["seeds"], params["tables"]["baseline"] = [0, 1, 2, 3, 4], f"{names[0]}_0"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    study = Study.load()
    current = Current(study, read_params("params.yaml"))
    history = [{"epoch": e, "loss": 1 / e, "test_top1": 70 - 1 / e, "train_top1": 99 - 1 / e} for e in range(1, 241)]
    for task in list_tasks(study):
        if task.stage == "distill":
            values, digest = current._values(task)
            record = {"params": values, "params_sha256": digest, "code_sha256": current._code_of(task), "inputs": {}}
            record |= {"device": "cuda:0", "runs": [{"seed": 0, "history": history}]}
            for path in (*task.outputs, task.provenance):
                path.parent.mkdir(parents=True, exist_ok=True)
            task.outputs[0].touch()
            task.record.write_text(json.dumps(record, sort_keys=True, indent=1))
            task.provenance.write_text('{"wall_seconds": 3600.0}')
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    imported, seconds = done.stdout.split()[-2:]
    assert imported == "False"
    assert float(seconds) < 5, done.stdout  # of the processor; the wall clock also tells what else runs here
    assert "distill: 2000, its data is missing" in done.stdout
    assert "2,000 GPU-hours" in done.stdout
