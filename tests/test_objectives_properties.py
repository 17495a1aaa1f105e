"""What must hold for every logit objective at any logits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logit_batches import batch, context, total
from logit_cases import OBJECTIVES, accepted, made, normal, teachers_of
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from distillery import objectives
from distillery.objectives import OBJECTIVES as ALL
from distillery.objectives.base import Batch, Objective, Selector
from distillery.objectives.plugins import PLUGINS as ALL_PLUGINS
from distillery.objectives.plugins.revise import Revise
from distillery.objectives.plugins.standardise import Standardise

CONTEXT = context(torch.zeros(1, dtype=torch.long), torch.zeros(1, 10))
PLUGINS = ["standardise", "revise", "swap"]


@st.composite
def extremes(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Student logits, teacher logits, labels: every combination of the shapes and values that break losses."""
    rows, classes = draw(st.sampled_from([(1, 2), (1, 5), (2, 2), (4, 3), (8, 10), (5, 100)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    labels = torch.randint(classes, (rows,), generator=generator)

    def logits() -> Tensor:
        z = torch.randn(rows, classes, generator=generator)
        kind = draw(st.sampled_from(["normal", "huge", "sign", "constant rows", "zero", "rounded", "confident"]))
        if kind == "huge":
            return 1e4 * z.clamp(-1, 1)
        if kind == "sign":
            return 1e4 * z.sign()
        if kind == "constant rows":
            return draw(st.sampled_from([0.1, -3.0, 1e4])) * torch.ones_like(z)
        if kind == "zero":
            return torch.zeros_like(z)
        if kind == "rounded":
            return z.round()
        if kind == "confident":
            return z.scatter(1, labels[:, None], draw(st.sampled_from([-1e4, 1e4, 200.0])))
        return z

    student, teacher = logits(), logits()
    relation = draw(st.sampled_from(["free", "equal", "duplicate rows", "teacher wrong", "teacher right"]))
    if relation == "equal":
        teacher = student.clone()
    elif relation == "duplicate rows":
        student, teacher = student[:1].repeat(rows, 1), teacher[:1].repeat(rows, 1)
    elif relation == "teacher wrong":
        labels = teacher.argmin(dim=1)
    elif relation == "teacher right":
        labels = teacher.argmax(dim=1)
    return student, teacher, labels


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rows=extremes(), plugins=st.sets(st.sampled_from(PLUGINS)), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_loss_and_gradients_are_finite(name: str, rows: Any, plugins: set[str], dtype: str) -> None:
    student, teacher, labels = rows
    student = student.to(getattr(torch, dtype)).requires_grad_()
    strong = student.detach().flip(0).requires_grad_()
    teacher = teacher.to(student.dtype)
    objective = made(name, context(labels, student), accepted(name, plugins, student.shape[1]))
    teachers = teachers_of(objective, teacher, teacher.roll(1, dims=1))
    loss = total(objective, batch(student, teachers, labels, epoch=30, strong=(strong, teacher)))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    for grown in [student, strong, *objective.parameters()]:
        assert grown.grad is None or grown.grad.isfinite().all()
    assert student.grad is not None


@pytest.mark.parametrize("plugins", [("standardise", "revise"), ("standardise", "swap")], ids="-".join)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_has_static_shapes_and_never_waits_for_the_device(name: str, plugins: tuple[str, ...]) -> None:
    objective = made(name, CONTEXT, accepted(name, plugins, 10))
    assert objective.static
    step_without_values(objective)


def test_a_selection_has_shapes_that_depend_on_the_batch() -> None:
    objective = made("kd", CONTEXT)
    objective.selector = Selector(context(torch.zeros(8, dtype=torch.long), torch.zeros(1, 10)))
    assert not objective.static
    with pytest.raises(DataDependentOutputException):
        step_without_values(objective)


def step_without_values(objective: Objective) -> None:
    """Forward and backward on fake tensors, which have no values: a shape or a branch that needs one raises."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        student, strong = torch.randn(8, 10, requires_grad=True), torch.randn(8, 10, requires_grad=True)
        teacher, labels = torch.randn(8, 10), torch.zeros(8, dtype=torch.long)
        teachers = teachers_of(objective, teacher, teacher)
        total(objective, batch(student, teachers, labels, strong=(strong, teacher))).backward()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_of_a_batch_have_no_order(name: str) -> None:
    student, teacher, labels = normal(9, 7), normal(9, 7, seed=1), torch.arange(9) % 7
    objective = made(name, context(labels, student)).double()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))

    def loss(rows: Tensor) -> Tensor:
        teachers = teachers_of(objective, teacher[rows], -teacher[rows])
        return total(objective, batch(student[rows], teachers, labels[rows], strong=(student[rows], teacher[rows])))

    torch.testing.assert_close(loss(order), loss(torch.arange(9)))


def test_every_public_file_is_in_the_registry() -> None:
    for registry in (ALL, ALL_PLUGINS):
        for row in registry.values():
            kind = row.load()
            assert sys.modules[kind.__module__].__doc__
            assert kind.Config() == kind.Config.read(kind.Config().effective())
    folder = Path(objectives.__file__).parent
    shared = {"__init__", "base", "basis", "build", "features", "negatives", "orthogonal", "soft"}
    assert {p.stem for p in folder.glob("*.py")} - shared == {row.module.rpartition(".")[2] for row in ALL.values()}
    assert {p.stem for p in folder.glob("plugins/*.py")} - shared == set(ALL_PLUGINS)
    assert {"kd", "ctkd", "dkd", "mlkd", "mlkd_single", "mlkd_levels", "ttm", "wttm", "dist", "label_revision"} <= set(
        OBJECTIVES
    )
    assert {"ce", "rc", "rld", "clkd", "ensemble"} <= set(OBJECTIVES)
    assert {*PLUGINS, "select"} <= set(ALL_PLUGINS)
    assert Standardise.order > Revise.order


def test_batch_rows_cut_every_field() -> None:
    z, t, y = normal(4, 5), normal(4, 5, seed=1), torch.arange(4)
    cut: Batch = batch(z, (t, -t), y, strong=(2 * z, 2 * t)).rows(torch.tensor([True, False, False, True]))
    assert torch.equal(cut.labels, torch.tensor([0, 3])) and torch.equal(cut.index, torch.tensor([0, 3]))
    assert torch.equal(cut.teachers[1].logits, -t[[0, 3]])
    assert cut.strong_student is not None and torch.equal(cut.strong_student.logits, 2 * z[[0, 3]])
