"""Generation: two players in the fit loop, on digits of 8 x 8 pixels."""

from __future__ import annotations

import copy
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_generation
import torch
from spawned import exit_code

from distillery import models
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.objectives.base import Batch
from distillery.study.blocks import Method, Recipe
from distillery.task import task_of
from distillery.tasks.generation.data import limited
from distillery.tasks.generation.objectives.base import GAN, Wanted
from distillery.tasks.generation.teaching import ShownTeachers
from distillery.tasks.generation.training import GenTraining
from distillery.training.checkpoint import Checkpoint
from distillery.training.loop import Preempted, fit
from distillery.training.trainee import Trainee

pytestmark = pytest.mark.slow

RECIPE = Recipe.model_validate(small_generation.STUDY["recipe"] | {"epochs": 2, "batch_size": 30})
SHORT = {"d_steps": 2, "ema_decay": 0.9, "ema_start": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return limited(small_generation.digits(tmp_path_factory.mktemp("digits")), 0.2, 0)  # 179 images, 6 steps an epoch


@pytest.fixture(scope="module")
def training(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> GenTraining:
    classifier = small_generation.judge(tmp_path_factory.mktemp("judge"), data, "resnet8_w2")
    return GenTraining(task_of({"name": "generation", "samples": 60, "classifier": classifier}))


def made(training: GenTraining, data: Dataset, name: str, seed: int = 0, **options: Any) -> tuple[Trainee, Any]:
    """What a run trains, and its teacher."""
    torch.manual_seed(7)
    teachers = [] if name == "gan" else [models.build("resnet8_w2", data.num_classes, data.channels).eval()]
    method = Method.model_validate({"objective": name} | SHORT | options)
    trainee = training.assemble("biggan_ch2", method, data, teachers, seed)
    return trainee, ShownTeachers(teachers, RECIPE, data.mean, data.std) if teachers else None


METHODS: dict[str, dict[str, Any]] = {
    "gan": {},
    "gan lecam": {"lecam": 0.3, "lecam_start": 2, "augment": ["color", "translation", "cutout"]},
    "kd_dlgan": {},
    "vkd_gan": {"aggregated": 1.0},
    "vkd_gan cholesky": {"whitening": "cholesky"},
    "vkd_gan standardise": {"normalise": "standardise"},
}


@pytest.mark.parametrize("name", METHODS)
def test_both_players_learn(name: str, training: GenTraining, data: Dataset) -> None:
    trainee, teacher = made(training, data, name.split()[0], **METHODS[name])
    before = copy.deepcopy({"d": trainee.student.state_dict(), "o": trainee.objective.state_dict()})
    history = fit(trainee, training.loader(data, RECIPE), teacher, RECIPE, 0)
    for was, now in ((before["d"], trainee.student.state_dict()), (before["o"], trainee.objective.state_dict())):
        trained = [k for k in was if k.endswith("weight") and not k.startswith("average")]
        assert trained and all(not torch.equal(was[k], now[k]) for k in trained if "prototypes" not in k)
    objective = trainee.objective
    assert isinstance(objective, GAN) and int(objective.steps) == 12
    weights = zip(objective.average.parameters(), objective.generator.parameters(), strict=True)
    assert any(not torch.equal(mean, raw) for mean, raw in weights)  # it lags behind
    last = history[-1]
    assert 0 <= last["train_real_right"] <= 100 and last["train_generator"] != 0
    assert last["test_fd_resnet8_w2"] > 0 and 0 <= last["test_conditional"] <= 100
    assert ("loss_lecam" in last) == ("lecam" in name) and ("loss_hinge_real" in last)


def test_a_step_is_that_of_two_adams(training: GenTraining, data: Dataset) -> None:
    """One optimiser for both players does what an optimiser each would do."""
    trainee, _ = made(training, data, "gan")
    by_hand, _ = made(training, data, "gan")
    recipe = RECIPE.updated({"epochs": 1, "test_every": 1})
    loader = training.loader(data, recipe)
    fit(trainee, loader, None, recipe, 0)

    student, objective = by_hand.student.train(), by_hand.objective.train()
    assert isinstance(objective, GAN)
    settings: dict[str, Any] = {"lr": recipe.lr, "betas": (0.0, 0.999), "eps": 1e-8, "fused": True}
    of_d = torch.optim.Adam(student.parameters(), **settings)
    of_g = torch.optim.Adam(objective.generator.parameters(), **settings)
    epoch = loader.epoch(0, 1)
    for start in range(0, loader.count, recipe.batch_size):
        samples = epoch.batch(slice(start, min(start + recipe.batch_size, loader.count)))
        of_d.zero_grad()
        outputs = student(objective.shown(samples.inputs, samples.targets))
        batch = Batch(samples.targets, outputs, (), torch.ones(()), samples.index)
        sum(objective(batch).values()).backward()  # type: ignore[union-attr]
        of_d.step()
        of_g.zero_grad()
        for terms in objective.then(batch):
            terms["generator"].backward()
            of_g.step()
    for mine, theirs in ((student, trainee.student), (objective, trainee.objective)):
        for (name, a), b in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize("name", ["gan", "vkd_gan"])
def test_a_stopped_run_goes_on_with_the_same_bits(
    name: str, training: GenTraining, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two turns of the generator; another process goes on from the file alone."""
    monkeypatch.setenv("DISTILLERY_CHECKPOINT_SECONDS", "0")
    options: dict[str, Any] = {"lecam": 0.3, "lecam_start": 1}
    whole, teacher = made(training, data, name, **options)
    run = partial(fit, loader=training.loader(data, RECIPE), teacher=teacher, recipe=RECIPE, seed=0)
    straight = run(whole)
    stopped, _ = made(training, data, name, **options)
    checkpoint, steps = Checkpoint(tmp_path / "run", "key"), 0
    shown = stopped.objective.shown

    def interrupted(inputs: Any, targets: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return shown(inputs, targets)

    monkeypatch.setattr(stopped.objective, "shown", interrupted)
    with pytest.raises(Preempted):
        run(stopped, checkpoint=checkpoint)
    again, _ = made(training, data, name, seed=0, **options)
    with torch.no_grad():
        for p in [*again.student.parameters(), *again.objective.parameters()]:
            p.zero_()  # all that counts comes from the file
    assert run(again, checkpoint=checkpoint) == straight
    for (key, a), b in zip(again.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def _killed(training: GenTraining, data: Dataset, checkpoint: Checkpoint, step: int) -> None:
    """Train in a process that is killed, without notice, in its so-manyth step of the generator."""
    trainee, teacher = made(training, data, "vkd_gan")
    then, steps = trainee.objective.then, iter(range(1, 99))

    def doomed(batch: Any) -> Any:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return then(batch)

    trainee.objective.then = doomed  # type: ignore[method-assign]
    fit(trainee, checkpoint=checkpoint, loader=training.loader(data, RECIPE), teacher=teacher, recipe=RECIPE, seed=0)


def test_a_killed_run_goes_on_with_the_same_bits(
    training: GenTraining, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 in the middle of the second epoch."""
    monkeypatch.setenv("DISTILLERY_CHECKPOINT_SECONDS", "0")
    whole, teacher = made(training, data, "vkd_gan")
    run = partial(fit, loader=training.loader(data, RECIPE), teacher=teacher, recipe=RECIPE, seed=0)
    straight, checkpoint = run(whole), Checkpoint(tmp_path / "run", "key")
    assert exit_code(_killed, training, data, checkpoint, 9) == -signal.SIGKILL
    again, _ = made(training, data, "vkd_gan")
    assert run(again, checkpoint=checkpoint) == straight
    for (key, a), b in zip(again.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_a_test_leaves_the_run_as_it_was(training: GenTraining, data: Dataset) -> None:
    trainee, _ = made(training, data, "gan")
    before = copy.deepcopy(trainee.state_dict())
    first = trainee.objective.predict(Wanted(60, True))  # type: ignore[arg-type]
    second = trainee.objective.predict(Wanted(60, True))  # type: ignore[arg-type]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert first[0].dtype == torch.uint8 and first[0].shape == (60, 1, 8, 8)
    assert all(torch.equal(before[k], v) for k, v in trainee.state_dict().items())
    running, _ = trainee.objective.predict(Wanted(60, False))  # type: ignore[arg-type]
    assert not torch.equal(running, first[0])


def test_what_is_no_number_ends_in_one_sentence(training: GenTraining, data: Dataset) -> None:
    trainee, _ = made(training, data, "gan", ce_weight=1e30)
    with pytest.raises(DistilleryError, match=r"the training loss is (nan|inf) in epoch 1: lower"):
        fit(trainee, training.loader(data, RECIPE), None, RECIPE.updated({"lr": 1e30}), 0)
    trainee, _ = made(training, data, "gan")
    assert isinstance(trainee.objective, GAN)
    with torch.no_grad():
        trainee.objective.average.linear.bias.fill_(float("nan"))
    with pytest.raises(DistilleryError, match="the generator's images are not finite: lower"):
        training.test(trainee, training.loader(data, RECIPE), RECIPE)


def test_features_that_are_no_numbers_cannot_be_whitened(training: GenTraining, data: Dataset) -> None:
    """A generator that diverges within an epoch: what the teacher says of its images has no eigenvectors."""
    trainee, teacher = made(training, data, "vkd_gan")
    assert isinstance(trainee.objective, GAN) and teacher is not None
    with torch.no_grad():
        trainee.objective.generator.linear.bias.fill_(float("nan"))
    with pytest.raises(DistilleryError, match=r"features cannot be whitened, since they or the images .* lower"):
        fit(trainee, training.loader(data, RECIPE), teacher, RECIPE, 0)


def test_a_collapsed_generator_is_measured(training: GenTraining, data: Dataset) -> None:
    trainee, _ = made(training, data, "gan")
    assert isinstance(trainee.objective, GAN)
    with torch.no_grad():
        for p in trainee.objective.average.output_layer.parameters():
            p.zero_()
        trainee.objective.average.output_layer[2].weight.fill_(1e-3)
    found = training.test(trainee, training.loader(data, RECIPE), RECIPE)
    assert found["test_spread"] < 1e-6 and 0 < found["test_fd_resnet8_w2"] < float("inf")


def test_withheld_images_are_drawn_as_released(data: Dataset, tmp_path: Path) -> None:
    whole = small_generation.digits(tmp_path)
    part = limited(whole, 0.2, 0)
    np.random.seed(0)  # the released draw
    rows = np.random.choice(899, 179, replace=False)
    assert part.rows.tolist() == sorted(rows.tolist())
    assert torch.equal(part.train_images, whole.train_images[part.rows]) and len(part.test_labels) == 898
    assert part.facts["selection"]["fraction"] == 0.2 and part.facts["counts"]["train"] == 179
    assert limited(whole, 1.0, 0) is whole
