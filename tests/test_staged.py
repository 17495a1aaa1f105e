"""Staged distillation: the 3-D networks, every term by itself, the cascade, and a study of clips to its table."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from feature_batches import context
from small_study import make, write
from test_clips import STUDY
from torch import Tensor

from distillery import data
from distillery.config import Problems
from distillery.data.dataset import Dataset
from distillery.models import build
from distillery.models.base import Network
from distillery.models.resnet3d import unfolded
from distillery.objectives.base import Batch, Objective
from distillery.objectives.build import Loss
from distillery.objectives.kd import KD
from distillery.objectives.staged import correlation_loss, distribution_loss, pseudo_labels
from distillery.pipeline import check
from distillery.report.glossary import basis
from distillery.study.blocks import Method, Recipe
from distillery.task import task_of
from distillery.tasks.classification.training import assemble
from distillery.teachers.source import LiveTeachers
from distillery.training.checkpoint import Checkpoint
from distillery.training.loop import Preempted, fit

OFF = {"correlation_weight": 0, "distribution_weight": 0, "pseudo_labels": False}


# --- networks


def test_frames_are_unfolded_in_order() -> None:
    images = torch.arange(2 * 6 * 3 * 4).reshape(2, 6, 3, 4)
    clips = unfolded(images, 2)
    assert clips.shape == (2, 2, 3, 3, 4)
    assert all(torch.equal(clips[:, c, t], images[:, 2 * t + c]) for t in range(3) for c in range(2))


@pytest.mark.parametrize(
    ("name", "channels", "count"), [("resnet3d_8_w4", 8, 14_396), ("resnet3d_8_w2_rgb", 21, 3_814)]
)
def test_networks_over_time(name: str, channels: int, count: int) -> None:
    torch.manual_seed(0)
    network, images = build(name, 8, channels).eval(), torch.randn(3, channels, 16, 12)
    out = network(images, preacts=True)
    frames = channels // (3 if name.endswith("rgb") else 1)
    width = network.head.in_features // 4
    heights = [frames * 8, frames * 8, -(-frames // 2) * 4, -(-frames // 4) * 2]
    widths = [6, 6, 3, 2]
    assert [m.shape[1:] for m in out.maps] == [
        (c * width, h, w) for c, h, w in zip((1, 1, 2, 4), heights, widths, strict=True)
    ]
    assert sum(p.numel() for p in network.parameters()) == count
    assert out.pooled is not None
    torch.testing.assert_close(network.head(out.pooled), out.logits)
    for stage, (features, before) in enumerate(zip(out.maps, out.preacts, strict=True)):
        torch.testing.assert_close(network.tail(features.clone(), stage), out.logits)
        assert stage == 0 or torch.equal(before.relu(), features)
    backwards = images.unflatten(1, (frames, -1)).flip(1).flatten(1, 2)
    assert not torch.allclose(network(backwards).logits, out.logits, atol=1e-3)
    network.train()(images).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for n, p in network.named_parameters())
    last = network.to(memory_format=torch.channels_last).eval()(images.contiguous(memory_format=torch.channels_last))
    assert last.logits.shape == (3, 8)


@pytest.mark.slow
def test_torchvisions_networks_give_their_taps() -> None:
    torch.manual_seed(0)
    network, images = build("mc3_18_grey", 5, 2).eval(), torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        out = network(images)
        alone = network.get_submodule("module")(images[:, None].expand(-1, 3, -1, -1, -1))
    assert torch.equal(out.logits, alone) and [m.shape[1] for m in out.maps] == [64, 64, 128, 256, 512]


# --- terms


def test_terms_are_what_they_say() -> None:
    torch.manual_seed(0)
    features = torch.randn(6, 5, dtype=torch.float64)
    turned = 3 * features @ torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0] + 7
    assert correlation_loss(turned, features) < 1e-20 < 0.01 < correlation_loss(features.roll(1, 0), features)
    one, two = torch.tensor([[1.0, -1.0], [2.0, -2.0]]), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert correlation_loss(one, two) == 0  # centred, they point the same way or the opposite one
    p = features.softmax(1)
    by_hand = (p * (p.log() - features.roll(1, 1).log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(distribution_loss(features.roll(1, 1), features), by_hand)
    torch.testing.assert_close(distribution_loss(2 * features.roll(1, 1), 2 * features, 2.0), 4 * by_hand)


def test_pseudo_labels_keep_what_the_teacher_shares_and_replace_what_it_denies() -> None:
    teacher = torch.tensor([[0.6, 0.3, 0.1]]).log().expand(3, 3)
    found = pseudo_labels(teacher, torch.arange(3))
    torch.testing.assert_close(found[0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(found[1], 0.5 * torch.tensor([0.6, 0.3, 0.1]) + torch.tensor([0.0, 0.5, 0.0]))
    assert found[2, 0] == pytest.approx(0.6 * 5 / 6) and torch.allclose(found.sum(1), torch.ones(3))


# --- the objective


class Pair:
    """A student and a wider teacher of clips, with the outputs of both for eight of them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.student, teacher = build("resnet3d_8_w2", 8, 4), build("resnet3d_8_w4", 8, 4).requires_grad_(False)
        self.images, self.labels = torch.randn(8, 4, 8, 8), torch.arange(8)
        self.taught = teacher(self.images)

    def objective(self, **keys: Any) -> Objective:
        torch.manual_seed(1)
        student = self.student.eval()(self.images[:1])
        return Loss(Method(objective="staged", **keys)).build(context(student, self.taught))

    def batch(self, epoch: float = 1.0) -> Batch:
        student = self.student.train()(self.images)
        return Batch(self.labels, student, (self.taught,), torch.tensor(epoch), torch.arange(8))

    def norms(self, objective: Objective, epoch: float) -> dict[str, float]:
        """The gradient's norm for every part of the student."""
        self.student.zero_grad()
        torch.stack([*objective(self.batch(epoch)).values()]).sum().backward()
        parts = {name.partition(".")[0] for name, _ in self.student.named_parameters()}
        return {
            part: sum(p.grad.norm().item() for p in self.student.get_submodule(part).parameters() if p.grad is not None)
            for part in parts
        }


def test_without_its_own_terms_it_is_kd_and_without_kd_cross_entropy() -> None:
    pair = Pair()
    batch = pair.batch()
    found, kd = pair.objective(**OFF)(batch), KD(context(batch.student, pair.taught))(batch)
    assert found.keys() == kd.keys() == {"ce", "kd"} and all(torch.equal(found[k], kd[k]) for k in kd)
    plain = pair.objective(**OFF, kd_weight=0, ce_weight=1)(batch)
    assert plain.keys() == {"ce"}
    torch.testing.assert_close(plain["ce"], torch.nn.functional.cross_entropy(batch.student.logits, pair.labels))


def test_every_part_can_be_switched_off_and_acts() -> None:
    pair = Pair()
    batch = pair.batch()
    whole = pair.objective()(batch)
    assert whole.keys() == {"ce", "kd", "correlation", "distribution"}
    assert all(term > 0 for term in whole.values())
    assert pair.objective(correlation_weight=0)(batch).keys() == whole.keys() - {"correlation"}
    assert pair.objective(distribution_weight=0)(batch).keys() == whole.keys() - {"distribution"}
    assert not torch.equal(pair.objective(pseudo_labels=False)(batch)["ce"], whole["ce"])
    assert [tuple(p.shape) for p in pair.objective().parameters()] == [(4, 2), (8, 4), (16, 8)]
    assert not [*pair.objective(distribution_weight=0).parameters()]
    with pytest.raises(Problems, match="cascade_epochs: nothing is trained in them"):
        Loss(Method(objective="staged", cascade_epochs=3, **OFF))


def test_a_cascade_adds_one_stage_after_another() -> None:
    pair = Pair()
    objective = pair.objective(cascade_epochs=6)
    order = ("conv1", "layer1", "layer2", "layer3", "fc")
    for epoch, trained in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 4), (6, 4), (7, 5)):
        norms = pair.norms(objective, epoch)
        assert [norms[part] > 0 for part in order] == [True] * trained + [False] * (5 - trained), epoch
    full = pair.objective()
    pairs = zip(objective(pair.batch(7)).values(), full(pair.batch(7)).values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.slow
def test_a_cascade_resumes_to_the_bit(tmp_path: Path) -> None:
    data.prepare("moving_digits", {"train": 48, "test": 8, "noise": 0.4}, tmp_path / "arrays.safetensors")
    clips = Dataset.load(tmp_path / "arrays.safetensors")
    torch.manual_seed(0)
    teacher: Network = build("resnet3d_8_w4", 8, 8).eval().requires_grad_(False)
    recipe = Recipe(epochs=3, batch_size=16, milestones=(), augmentation={"pad": 1, "flip": False})

    def train(name: str, stop: int) -> dict[str, Tensor]:
        trainee = assemble("resnet3d_8_w2", Method(objective="staged", cascade_epochs=2), clips, [teacher], 0)
        supervised, steps = trainee.objective.supervised, 0

        def counted(batch: Batch) -> dict[str, Tensor]:
            nonlocal steps
            steps += 1
            if steps == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return supervised(batch)

        trainee.objective.supervised = counted  # type: ignore[method-assign]
        fit(
            trainee, clips.loader(recipe), LiveTeachers([teacher], recipe), recipe, 0, Checkpoint(tmp_path / name, name)
        )
        return trainee.student.state_dict() | trainee.objective.state_dict()

    whole = train("whole", 0)
    with pytest.raises(Preempted):
        train("stopped", 5)
    again = train("stopped", 0)
    assert whole.keys() == again.keys() and all(torch.equal(whole[k], again[k]) for k in whole)


# --- the study


def test_the_study_is_valid_and_says_what_it_is() -> None:
    study = check.load(ROOT / "workflow/studies/staged_video.yaml")
    assert task_of(study.task).part("rehearsal")(study, True) == []
    assert study.data.options["noise"] == 0.4 and len(study.runs()) == 5 * len(study.methods)
    assert basis(study.methods["staged"]) == "declared design"


def test_a_cascade_must_end_before_training_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods = {"staged": {"objective": "staged", "cascade_epochs": 2}}
    for epochs, said in (
        (2, "methods.staged: cascade_epochs: 2 leave none of 2 epochs to train the classifier"),
        (3, ""),
    ):
        write(
            STUDY | {"methods": methods, "tables": {}, "recipe": STUDY["recipe"] | {"epochs": epochs, "milestones": []}}
        )
        study = check.load(Path("params.yaml"))
        found = task_of(study.task).part("rehearsal")(study, True)
        assert len(found) == bool(said) and said in "".join(found)


@pytest.mark.slow
def test_a_small_study_of_clips_comes_to_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods = STUDY["methods"] | {"staged": {"objective": "staged", "cascade_epochs": 1}}
    write(STUDY | {"methods": methods, "recipe": STUDY["recipe"] | {"epochs": 2, "channels_last": True}})
    assert len(make(tables=True)) > 5
    table = (tmp_path / "results/clips/table.md").read_text()
    assert "| staged<sup>‡</sup> | declared design" in re.sub(
        r"\|[^|]*arXiv:2307.05201[^|]*\|", "|", re.sub(" +", " ", table)
    )
    assert make() == []
