"""The captured step: rehearsed on the CPU (cursor, plan, undoing), and for real where there is a CUDA device."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from spawned import exit_code

from distillery import data, models
from distillery.data.dataset import Dataset
from distillery.objectives.base import Batch, Context, Objective
from distillery.records.io import DistilleryError
from distillery.study.blocks import Recipe
from distillery.tasks.classification.training import ClassTraining
from distillery.training import loop
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import set_up
from distillery.training.loop import Preempted, fit
from distillery.training.step import GraphStep
from distillery.training.trainee import Trainee

RECIPE = Recipe(epochs=3, batch_size=64, lr=0.02, milestones=(2,), augmentation={"pad": 1, "flip": False})
MODERN = RECIPE.updated(
    {
        "lr": 0.002,
        "optimizer": {"name": "adamw"},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5, "per": "step"},
        "decay": "matrices",
        "clip": 0.5,
        "label_smoothing": 0.1,
        "ema": {"decay": 0.9, "warmup": True},
    }
)
both = pytest.mark.parametrize("recipe", [RECIPE, MODERN], ids=["sgd", "adamw"])


class Replay:
    """Stands for a graph on a machine that has none: the same operations, issued again."""

    def __init__(self, step: GraphStep, size: int) -> None:
        self.step, self.size = step, size

    def replay(self) -> None:
        self.step.optimizer.zero_grad(set_to_none=True)
        self.step._advance(self.size)


class Rehearsal(GraphStep):
    """All of the captured step but the capture: rows from the cursor, a plan kept in place, warm-up undone."""

    def _capture(self, size: int) -> Any:
        with torch.random.fork_rng(), self._undone():
            self._warm_up(size)
        return Replay(self, size)


class Noisy(Objective):
    """Plain training plus a noisy term, drawn on the device; a signal may come at one of its calls."""

    needs = frozenset()

    def __init__(self, context: Context, at: int = 0) -> None:
        super().__init__(context)
        self.count, self.at = 0, at

    def distill(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.count += 1
        if self.count == self.at:
            signal.raise_signal(signal.SIGTERM)
        logits = batch.student.logits
        return {"noise": (torch.rand_like(logits) * logits).square().mean() * batch.epoch}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "arrays.safetensors"
    data.prepare("digits", {}, path)
    return path


@pytest.fixture(scope="module")
def digits(arrays: Path) -> Dataset:
    return Dataset.load(arrays).hold_out(0.7)  # 270 images: four batches of 64 and one of 14


def train(
    digits: Dataset, recipe: Recipe, folder: Path | None = None, at: int = 0, kind: type[Noisy] = Noisy
) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(1)
    network = models.build("resnet8_w2", digits.num_classes, digits.channels)
    context = Context(digits.num_classes, digits.train_labels, models.base.Outputs(torch.zeros(1, 10)))
    checkpoint = Checkpoint(folder / "run.safetensors", "this run") if folder else None
    trainee = Trainee(network, kind(context, at), ClassTraining())
    history = fit(trainee, digits.loader(recipe), None, recipe, 1, checkpoint)
    return history, {k: v.cpu() for k, v in network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[k], v) for k, v in other.items())


@both
def test_rehearsed_graph_equals_the_eager_step(
    digits: Dataset, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows by cursor, epochs copied into the first plan, a partial batch as second graph: the same bits as eager."""
    history, weights = train(digits, recipe)
    monkeypatch.setattr(loop, "Step", Rehearsal)
    again, rehearsed = train(digits, recipe)
    assert again == history
    assert equal(weights, rehearsed)


@pytest.mark.slow
@both
@pytest.mark.parametrize("at", [2, 4, 6, 11])
def test_rehearsed_graph_resumes_exactly(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, recipe: Recipe
) -> None:
    """A signal while the step is warmed up or running, before or after the partial batch, in any epoch."""
    monkeypatch.setattr(loop, "Step", Rehearsal)
    undisturbed = train(digits, recipe)
    with pytest.raises(Preempted):
        train(digits, recipe, tmp_path, at)
    assert Checkpoint(tmp_path / "run.safetensors", "this run").load() is not None
    resumed = train(digits, recipe, tmp_path)
    assert equal(undisturbed[1], resumed[1])
    assert resumed[0] == undisturbed[0]


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a CUDA device")


@needs_cuda
@both
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graph_trains_as_the_eager_step(digits: Dataset, precision: str, recipe: Recipe) -> None:
    recipe = recipe.updated({"precision": precision})
    on_device = digits.to(set_up(recipe))
    graph, eager = (train(on_device, recipe.updated({"graph": g}))[0] for g in (True, False))
    assert [r["loss"] for r in graph] == pytest.approx([r["loss"] for r in eager], rel=1e-3)


@needs_cuda
@both
@pytest.mark.parametrize("at", [2, 6])
def test_graph_resumes_exactly(digits: Dataset, tmp_path: Path, at: int, recipe: Recipe) -> None:
    """The objective's Python runs only while a graph is made (four calls each), so the signal comes then."""
    on_device = digits.to(set_up(recipe))
    undisturbed = train(on_device, recipe)[1]
    with pytest.raises(Preempted):
        train(on_device, recipe, tmp_path, at)
    assert equal(undisturbed, train(on_device, recipe, tmp_path)[1])


class Asking(Noisy):
    """Waits for the device in every step."""

    def distill(self, batch: Batch) -> dict[str, torch.Tensor]:
        terms = super().distill(batch)
        return {"positive": terms["noise"] * float(terms["noise"] > 0)}


def _refused(path: Path) -> None:
    digits = Dataset.load(path).hold_out(0.7)
    on_device = digits.to(set_up(RECIPE))
    with pytest.raises(DistilleryError, match=r"a step of Asking cannot be captured.*recipe.graph: false"):
        train(on_device, RECIPE, kind=Asking)


@needs_cuda
def test_a_step_that_asks_the_host_is_refused_in_one_sentence(digits: Dataset, arrays: Path) -> None:
    """In a process of its own: a failed capture may leave its stream and the generator of random numbers in use."""
    assert exit_code(_refused, arrays) == 0
    train(digits.to(set_up(RECIPE)), RECIPE.updated({"graph": False}), kind=Asking)
