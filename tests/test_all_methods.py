"""Every objective, every plug-in and combinations on real digits: each acts on the student, none is only a formula.

The quick tests compare gradients of one training step: with the distillation terms and without them, with this teacher
and with another, with the plug-in or partner and without. A gradient is the whole of what a loss does to a student, so
this is proof enough that a term acts; that it also falls in training is shown by the slow tests.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from distillery import data
from distillery.data.dataset import Dataset
from distillery.models.base import Network
from distillery.objectives import OBJECTIVES
from distillery.objectives.base import Batch
from distillery.objectives.build import needs as needs_of
from distillery.objectives.plugins import PLUGINS
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.teachers.source import LiveTeachers
from distillery.training.loop import fit, make_step
from distillery.training.trainee import Trainee

RECIPE = Recipe(epochs=4, batch_size=16, lr=0.02, milestones=(3,), augmentation={"pad": 1, "flip": False}, test_every=4)
BLOCKS: dict[str, dict[str, Any]] = {name: {"objective": name} for name in OBJECTIVES}
BLOCKS |= {f"kd with {name}": {"objective": "kd", "plugins": {name: {}}} for name in PLUGINS}
BLOCKS["wttm plus crd"] = {"objective": "wttm", "plus": {"crd": {}}}
BLOCKS["wttm plus itrd"] = {"objective": "wttm", "plus": {"itrd": {"weight": 0.5}}}
PLAIN = {name: block["objective"] for name, block in BLOCKS.items() if len(block) > 1}  # what each builds upon


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("digits") / "arrays.safetensors"
    data.prepare("digits", {}, path)
    whole = Dataset.load(path)
    some = torch.arange(0, len(whole.train_labels), 3)
    cut = {"train_images": whole.train_images[some], "train_labels": whole.train_labels[some]}
    return dataclasses.replace(whole, **cut, rows=torch.arange(len(some)))


@pytest.fixture(scope="module")
def teachers(digits: Dataset) -> list[Network]:
    def train(seed: int) -> Network:
        trainee = assemble("resnet8_w8", Method(objective="ce"), digits, [], seed)
        recipe = RECIPE.updated({"lr": 0.05, "epochs": 8, "milestones": [6]})
        fit(trainee, digits.loader(recipe), None, recipe, seed)
        return trainee.student

    return [train(0), train(1)]


def run_of(name: str, teachers: list[Network], digits: Dataset) -> tuple[Trainee, LiveTeachers | None]:
    """A fresh student with the method's objective, and the teachers that it asks for."""
    method = Method.model_validate(BLOCKS[name])
    needs = needs_of(method)
    used = (teachers if "teachers" in needs else teachers[:1]) if needs else []
    student = "deit_w48_p2" if "distilled" in needs else "resnet8_w8"  # with a distillation head, or without
    trainee = assemble(student, method, digits, used, 0)
    return trainee, LiveTeachers(used, RECIPE, needs) if used else None


def look(trainee: Trainee, source: LiveTeachers | None, digits: Dataset) -> tuple[Tensor, dict[str, float]]:
    """The student's gradient and the distillation terms on one batch, in a training step that does not move weights.

    The step is made twice, because the memory banks of `crd` know the teacher from the first one on.
    """
    found: dict[str, float] = {}
    objective, distill = trainee.objective, trainee.objective.distill

    def recording(batch: Batch) -> dict[str, Tensor]:
        terms = distill(batch)
        found.update({name: term.item() for name, term in terms.items()})
        return terms

    loader = digits.loader(RECIPE)
    still = torch.optim.SGD(trainee.parameters(), lr=0.0)
    step = make_step(trainee, loader, source, still, RECIPE)
    step.begin(loader.epoch(0, 1, "strong" in objective.needs, source.rows if source else None), 1)
    objective.distill = recording  # type: ignore[method-assign]
    trainee.student.train()
    objective.train()
    for _ in range(2):
        torch.manual_seed(0)
        step(0, 128)
    objective.distill = distill  # type: ignore[method-assign]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainee.student.parameters()]
    return torch.cat([g.flatten() for g in grads]), found


def check_that_it_acts(name: str, teachers: list[Network], digits: Dataset) -> None:
    """Assert that the method's distillation terms change the student's gradient, and do so by what the teacher says."""
    gradient, terms = look(*run_of(name, teachers, digits), digits)
    assert terms and all(math.isfinite(value) and value != 0 for value in terms.values()), terms

    def moved_from(other: Tensor) -> float:
        return ((gradient - other).norm() / gradient.norm()).item()

    trainee, source = run_of(name, teachers, digits)
    trainee.objective.distill = lambda batch: {"nothing": 0 * batch.student.logits.sum()}  # type: ignore[method-assign]
    assert moved_from(look(trainee, source, digits)[0]) > 1e-3, "the gradient is that of the cross-entropy"
    assert moved_from(look(*run_of(name, [teachers[1]] * 2, digits), digits)[0]) > 1e-3, "any teacher would do"
    if name in PLAIN:  # with a plug-in or a partner: the objective alone is another thing
        assert moved_from(look(*run_of(PLAIN[name], teachers, digits), digits)[0]) > 1e-3, f"it is only {PLAIN[name]}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "ce"])
def test_distillation_acts(digits: Dataset, teachers: list[Network], name: str) -> None:
    check_that_it_acts(name, teachers, digits)


def test_plain_training_distils_nothing(digits: Dataset, teachers: list[Network]) -> None:
    trainee, source = run_of("ce", teachers, digits)
    assert source is None and look(trainee, source, digits)[1] == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "ce"])
def test_the_check_notices_what_does_not_act(
    digits: Dataset, teachers: list[Network], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take away the distillation terms (with a partner: its terms; with a plug-in: what it does): the check fails."""
    objective = run_of(name, teachers, digits)[0].objective
    if objective.selector is not None:
        monkeypatch.setattr(type(objective.selector), "forward", lambda self, batch: batch.labels > -1)
    elif len(objective.plugins):
        monkeypatch.setattr(type(objective.plugins[0]), "forward", lambda self, s, t, labels: (s, t))
    else:
        idle = next(iter(objective.partners.values())) if "plus" in BLOCKS[name] else objective
        monkeypatch.setattr(type(idle), "distill", lambda self, batch: {})
    # The last is the step's own complaint: where the method has no cross-entropy, nothing is left to add up.
    with pytest.raises((AssertionError, RuntimeError), match=r"^\{\}|it is only|non-empty TensorList"):
        check_that_it_acts(name, teachers, digits)


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKS)
def test_trains_on_digits(digits: Dataset, teachers: list[Network], name: str) -> None:
    """The student learns, and on a fixed batch the sum of the distillation terms is lower after training than before.

    Single terms may rise (`rc`'s own does, while its student becomes sure of itself); for no method does the sum.
    """
    trainee, source = run_of(name, teachers, digits)
    before = {k: v.clone() for k, v in trainee.student.state_dict().items()}
    transformer = {"optimizer": {"name": "adamw"}, "lr": 0.003, "decay": "matrices"}
    recipe = RECIPE.updated(transformer) if "distilled" in trainee.objective.needs else RECIPE
    history = fit(trainee, digits.loader(recipe), source, recipe, 0)
    changed = [k for k, v in trainee.student.state_dict().items() if not torch.equal(v, before[k])]
    assert len(changed) > 20
    assert history[-1]["train_top1"] > history[0]["train_top1"], [r["train_top1"] for r in history]
    assert all(torch.isfinite(p).all() for p in trainee.parameters())
    if name != "ce":
        first, last = (look(t, source, digits)[1] for t in (run_of(name, teachers, digits)[0], trainee))
        assert sum(last.values()) < sum(first.values()), (first, last)
