"""AdamW, a cosine per step, clipping and an average: stopped or killed anywhere, a run ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import BEFORE, Workbench

from distillery import data
from distillery.data.dataset import Dataset
from distillery.objectives.base import Batch
from distillery.pipeline.layout import Layout
from distillery.records.io import load_tensors, read_json, save_tensors
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import set_up
from distillery.training.history import load_history
from distillery.training.loop import Preempted, fit

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    epochs=3,
    batch_size=64,
    lr=0.003,
    optimizer={"name": "adamw"},
    schedule={"name": "cosine", "warmup_epochs": 1, "min_lr": 1e-5, "per": "step"},
    decay="matrices",
    weight_decay=0.05,
    clip=1.0,
    label_smoothing=0.1,
    ema={"decay": 0.95},
    validation=0.5,  # seven batches, the last one incomplete
    augmentation={"pad": 1, "flip": False},
)
STEPS = 7


def train(folder: Path, recipe: Recipe, at: int = 0, how: signal.Signals = signal.SIGTERM) -> tuple[Any, ...]:
    """Train in a folder, with a signal in step `at`; a second call goes on where the first one stopped."""
    set_up(recipe)
    if not (arrays := folder / "arrays.safetensors").exists():
        data.prepare("digits", {}, arrays)
    digits = Dataset.load(arrays).hold_out(recipe.validation)
    trainee = assemble("resnet8_w2", Method(objective="ce"), digits, [], 0)
    supervised, count = trainee.objective.supervised, 0

    def interrupted(batch: Batch) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), how)
        return supervised(batch)

    trainee.objective.supervised = interrupted  # type: ignore[method-assign]
    checkpoint = Checkpoint(folder / "run.safetensors", "this run")
    checkpoint.seconds = 0
    history = fit(trainee, digits.loader(recipe), None, recipe, 0, checkpoint)
    return history, trainee.state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], v) for k, v in other.items())


@pytest.mark.parametrize("at", [1, 3, STEPS, STEPS + 5, 3 * STEPS])
@pytest.mark.parametrize("student", ["average", "raw"])
def test_preempted_anywhere_resumes_exactly(tmp_path: Path, at: int, student: str) -> None:
    recipe = RECIPE.updated({"ema": {"decay": 0.95, "warmup": student == "raw", "student": student}})
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    history, weights = train(one, recipe)
    with pytest.raises(Preempted):
        train(two, recipe, at)
    again, resumed = train(two, recipe)
    assert again == history
    assert equal(resumed, weights)


def test_what_a_checkpoint_holds_and_which_weights_are_the_student(tmp_path: Path) -> None:
    history, weights = train(tmp_path, RECIPE)
    saved = load_tensors(tmp_path / "run.safetensors")
    assert {"optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "optimizer.0.step"} <= saved.keys()
    assert saved["optimizer.0.step"] == 3 * STEPS
    assert equal({k.removeprefix("average."): v for k, v in saved.items() if k.startswith("average.")}, weights)
    assert not equal({k: saved[k] for k in weights}, weights)
    assert {"test_top1", "val_top1", "raw_test_top1", "raw_val_loss"} <= history[-1].keys()
    raw = RECIPE.updated({"ema": {"decay": 0.95, "student": "raw"}})
    (tmp_path / "run.safetensors").unlink()
    other, same = train(tmp_path, raw)
    assert [r["average_test_loss"] for r in other] == [r["test_loss"] for r in history]
    assert [r["test_loss"] for r in other] == [r["raw_test_loss"] for r in history]
    assert equal({k: saved[k] for k in weights}, same)
    without = RECIPE.updated({"ema": None})
    (tmp_path / "run.safetensors").unlink()
    assert equal(train(tmp_path, without)[1], same)  # an average changes nothing about what it follows


def test_the_rate_moves_with_every_step(tmp_path: Path) -> None:
    history, _ = train(tmp_path, RECIPE)
    schedule = RECIPE.part("schedule")
    assert [r["lr"] for r in history] == [schedule.rate(e, (STEPS - 1) / STEPS) for e in (1, 2, 3)]


@pytest.mark.slow
def test_killed_in_mid_epoch_resumes_exactly(tmp_path: Path) -> None:
    """A real process, kill -9 in its second epoch, then another one to the end."""
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()

    def process(folder: Path, at: int = 0) -> int:
        here = Path(__file__)
        code = f"import {here.stem} as t; from pathlib import Path; t.main(Path({str(folder)!r}), {at})"
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])}
        return subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode

    assert process(one) == 0
    assert process(two, STEPS + 4) == -signal.SIGKILL
    assert not (two / "end.safetensors").exists()
    left = Checkpoint(two / "run.safetensors", "this run").load()
    assert left and (left[0].epoch, left[0].step) == (1, 3), "not only at the end of an epoch: one may take an hour"
    assert process(two) == 0
    assert (one / "end.safetensors").read_bytes() == (two / "end.safetensors").read_bytes()


def main(folder: Path, at: int) -> None:
    save_tensors(folder / "end.safetensors", train(folder, RECIPE, at, signal.SIGKILL)[1])


@pytest.mark.slow
def test_through_the_stages(tmp_path: Path) -> None:
    """The real commands: a student by another recipe than its teacher, killed, resumed and measured."""
    bench = Workbench(tmp_path / "bench")
    bench.tiny(epochs=6)
    params = bench.params
    said = ("lr", "optimizer", "schedule", "decay", "clip", "ema")
    recipe = {k: v for k, v in RECIPE.effective().items() if k in said}
    params["methods"]["kd"]["recipe"] = recipe
    bench.params = params
    (pair,) = params["pairs"]
    at, job = Layout("digits"), ("--pair", pair, "--method", "kd", "--seed", "0")
    students, checkpoint = (bench.root / f(pair, "kd", "0") for f in (at.students, at.checkpoint))
    bench.make(*BEFORE)
    bench.run("distillery", "distill", *job)
    undisturbed = students.read_bytes()
    students.unlink()
    process = bench.start("distillery", "distill", *job, DISTILLERY_CHECKPOINT_SECONDS="0")
    deadline = time.monotonic() + 600
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=600)
    assert checkpoint.exists() and not students.exists(), "the run was over before it could be killed"
    assert "going on after" in bench.run("distillery", "distill", *job).stdout
    assert students.read_bytes() == undisturbed
    bench.run("distillery", "evaluate", *job)
    history = load_history(bench.root / at.history(pair, "kd", "0"))["0"][-1]
    metrics = read_json(bench.root / at.metrics(pair, "kd", "0"))
    assert recipe.items() <= metrics["recipe"].items()
    assert metrics["recipe"].keys().isdisjoint({"momentum", "nesterov", "milestones", "lr_decay"})
    assert metrics["runs"][0]["last"]["top1"] == pytest.approx(history["test_top1"])  # of the average
