"""torchrun on two processes through the real command: the loss curve of one, resume, and a process that dies."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from workbench import BEFORE, Workbench

from distillery.pipeline.layout import Layout
from distillery.records.io import load_tensors, read_json, sha256_file
from distillery.training.history import load_history

pytestmark = pytest.mark.slow
AT = Layout("digits")
PAIR = "resnet20_w8-resnet8_w2"

METHODS = {
    # From the view table, which float64 would not ask.
    "kd": {"objective": "kd", "recipe": {"epochs": 2, "milestones": [2], "precision": "float32"}},
    # Live teachers and everything at once, each term of the loss recorded by itself: losses that couple the images of a
    # batch (dist, crd), modules and memories of the objective (crd), feature maps, the objective's own batch
    # normalisation, modules that predict in the student's place (simkd).
    "all": {"objective": "simkd", "plus": {"kd": {}, "dist": {}, "crd": {}, "cat_kd": {}}},
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A working copy with students of one process, in float64, so that a wrong formula cannot hide in rounding."""
    bench = Workbench(tmp_path_factory.mktemp("parallel"))
    bench.tiny(epochs=6)
    params = bench.params
    params["recipe"] |= {"precision": "float64", "batch_size": 50}
    params["data"]["test_fraction"] = 0.85  # 269 training images: the last batch of 19 has no equal halves
    params["pairs"] = {PAIR: {"teacher": "resnet20_w8", "student": "resnet8_w2"}}
    params["methods"], params["tables"]["baseline"] = METHODS, "kd"
    bench.params = params
    bench.make(*BEFORE, "distill")
    return bench


DISTILL = ("distill", "--pair", PAIR, "--method", "all", "--seed", "0")
TORCHRUN = ("torchrun", "--standalone", "--nproc-per-node", "2", "-m", "distillery")
STUDENTS, CHECKPOINT = AT.students(PAIR, "all", "0"), AT.checkpoint(PAIR, "all", "0")


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_have_the_loss_curve_of_one(bench: Workbench, method: str) -> None:
    cell = (PAIR, method, "0")
    record, history, students = (bench.root / f(*cell) for f in (AT.run_record, AT.history, AT.students))
    one, alone, weights = read_json(record), load_history(history)["0"], load_tensors(students)
    bench.run(*TORCHRUN, "distill", "--pair", PAIR, "--method", method, "--seed", "0")
    two, together, shared = read_json(record), load_history(history)["0"], load_tensors(students)
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert two["teacher_outputs"].startswith("live" if method == "all" else "view table")
    tolerance = 1e-9 if method == "all" else 1e-4
    for before, after in zip(alone, together, strict=True):
        if method == "all":
            assert {
                "loss_simkd",
                "loss_kd_kd",
                "loss_dist_inter",
                "loss_dist_intra",
                "loss_crd_crd",
                "loss_cat_kd_cat",
            } <= before.keys()
        assert after == pytest.approx(before, rel=tolerance)
    assert weights.keys() == shared.keys()
    for name, value in weights.items():
        assert torch.allclose(shared[name].double(), value.double(), rtol=0, atol=tolerance), name
    if method == "kd":
        return
    bench.run("distillery", "evaluate", "--pair", PAIR, "--method", "all", "--seed", "0")
    measured = read_json(bench.root / AT.metrics(PAIR, "all", "0"))["runs"][0]
    assert measured["last"]["top1"] == pytest.approx(together[-1]["test_top1"])


def test_two_processes_share_tokens_and_distillation_heads(bench: Workbench) -> None:
    before, pair = bench.params, "resnet20_w8-deit_w48_p2"
    adamw = {"optimizer": {"name": "adamw"}, "lr": 0.003, "decay": "matrices", "epochs": 2, "milestones": [1]}
    bench.params = before | {
        "pairs": {pair: {"teacher": "resnet20_w8", "student": "deit_w48_p2"}},
        "methods": {"vkd": {"objective": "vkd_tokens", "recipe": adamw}},
        "tables": before["tables"] | {"baseline": "vkd"},
    }
    command = ("distill", "--pair", pair, "--method", "vkd", "--seed", "0")
    history = bench.root / AT.history(pair, "vkd", "0")
    bench.make("pair", "distill")
    alone = load_history(history)["0"]
    bench.run(*TORCHRUN, *command)
    together = load_history(history)["0"]
    bench.params = before
    for one, two in zip(alone, together, strict=True):
        assert one["loss_feature"] > 0 and one["loss_kd"] > 0
        assert two == pytest.approx(one, rel=1e-9)


def workers(parent: int) -> list[int]:
    """The processes that a torchrun has started, in the order of their numbers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(state[1]) == parent and b"distill" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return sorted(found)


def interrupt(bench: Workbench, how: signal.Signals) -> str:
    """Start the run on two processes, send the second a signal when there is a new checkpoint; return the output."""
    checkpoint = bench.root / CHECKPOINT
    before = sha256_file(checkpoint) if checkpoint.exists() else ""
    process = bench.start(*TORCHRUN, *DISTILL, DISTILLERY_CHECKPOINT_SECONDS="0")
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if checkpoint.exists() and sha256_file(checkpoint) != before:
            break
        time.sleep(0.01)
    both = workers(process.pid)
    assert len(both) == 2, process.communicate()[0]
    os.kill(both[1], how)
    said, _ = process.communicate(timeout=600)
    assert process.returncode, said
    assert not any(Path("/proc", str(number)).exists() for number in both), "a process was left behind"
    assert not (bench.root / STUDENTS).exists(), "the run was over before it could be stopped"
    assert checkpoint.exists()
    return said


def test_stopped_then_killed_then_finished(bench: Workbench) -> None:
    """A signal to one process stops both after the same step; the death of one ends both; the weights stay the same."""
    undisturbed = sha256_file(bench.root / STUDENTS)  # by the test above
    (bench.root / STUDENTS).unlink()
    assert "by SIGTERM (cancelled, preempted or out of time): the state is saved" in interrupt(bench, signal.SIGTERM)
    assert "the state is saved" in interrupt(bench, signal.SIGINT)
    said = interrupt(bench, signal.SIGKILL)
    assert "going on after" in said
    assert "another process of this run has ended" in said or "closing signal SIGTERM" in said  # whoever notices first
    assert "going on after" in bench.run(*TORCHRUN, *DISTILL).stdout
    assert sha256_file(bench.root / STUDENTS) == undisturbed


def test_a_stage_for_one_process_says_so(bench: Workbench) -> None:
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    done = bench.run("distillery", "cache", "--teacher", "resnet20_w8", check=False, **torchrun)
    assert done.returncode == 1
    assert done.stderr == "distillery: this stage runs in one process: start it without torchrun\n"
