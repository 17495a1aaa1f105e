"""Every objective, every plug-in and combinations, trained on real digits: none is only a formula."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from distillery import data, models
from distillery.data.dataset import Dataset
from distillery.objectives import OBJECTIVES
from distillery.objectives.build import needs as needs_of
from distillery.objectives.plugins import PLUGINS
from distillery.records.io import write_json
from distillery.study.blocks import Method, Recipe
from distillery.teachers.source import LiveTeachers
from distillery.training.loop import fit
from distillery.training.trainee import assemble

RECIPE = Recipe(epochs=4, batch_size=16, lr=0.02, milestones=(3,), augmentation={"pad": 1, "flip": False}, test_every=4)
BLOCKS: dict[str, dict[str, Any]] = {name: {"objective": name} for name in OBJECTIVES}
BLOCKS |= {f"kd with {name}": {"objective": "kd", "plugins": {name: {}}} for name in PLUGINS}
BLOCKS["wttm plus crd"] = {"objective": "wttm", "plus": {"crd": {}}}
BLOCKS["wttm plus itrd"] = {"objective": "wttm", "plus": {"itrd": {"weight": 0.5}}}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("digits")
    write_json(folder / "data.json", data.prepare("digits", {}, folder))
    whole = Dataset.load(folder)
    some = torch.arange(0, len(whole.train_labels), 3)
    cut = {"train_images": whole.train_images[some], "train_labels": whole.train_labels[some]}
    return dataclasses.replace(whole, **cut, rows=torch.arange(len(some)))


@pytest.fixture(scope="module")
def teachers(digits: Dataset) -> list[models.base.Network]:
    def train(seed: int) -> models.base.Network:
        trainee = assemble("resnet8_w8", Method(objective="ce"), digits, [], seed)
        fit(trainee, digits, None, RECIPE.updated({"lr": 0.05, "epochs": 8, "milestones": [6]}), seed)
        return trainee.student

    return [train(0), train(1)]


@pytest.mark.parametrize("name", BLOCKS)
def test_trains_on_digits(digits: Dataset, teachers: list[models.base.Network], name: str) -> None:
    method = Method.model_validate(BLOCKS[name])
    needs = needs_of(method)
    used = (teachers if "teachers" in needs else teachers[:1]) if needs else []
    trainee = assemble("resnet8_w8", method, digits, used, 0)
    before = {k: v.clone() for k, v in trainee.student.state_dict().items()}
    source = LiveTeachers(used, RECIPE, preacts="preacts" in needs) if used else None
    history = fit(trainee, digits, source, RECIPE, 0)
    changed = [k for k, v in trainee.student.state_dict().items() if not torch.equal(v, before[k])]
    assert len(changed) > 20
    assert history[-1]["train_top1"] > history[0]["train_top1"], [r["train_top1"] for r in history]
    assert all(torch.isfinite(p).all() for p in trainee.parameters())
