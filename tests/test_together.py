"""Several students trained in turn in one process: the bits of each alone, also when a signal comes between."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import small_study
import torch
from test_graph_step import MODERN, RECIPE, Noisy, arrays, digits, equal  # noqa: F401 (fixtures)

from distillery import models
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.objectives.base import Context
from distillery.pipeline.planner import current
from distillery.stages import distill
from distillery.tasks.classification.training import ClassTraining
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import set_up
from distillery.training.loop import Preempted
from distillery.training.together import Run, fit_all
from distillery.training.trainee import Trainee

BRIEF = {"epochs": 2}


def run(digits: Dataset, seed: int, folder: Path | None = None, at: int = 0) -> Run:  # noqa: F811
    torch.manual_seed(seed)
    network = models.build("resnet8_w2", digits.num_classes, digits.channels)
    context = Context(digits.num_classes, digits.train_labels, models.base.Outputs(torch.zeros(1, 10)))
    checkpoint = Checkpoint(folder / f"{seed}.safetensors", f"run {seed}") if folder else None
    return Run(Trainee(network, Noisy(context, at), ClassTraining()), seed, checkpoint)


def trained(digits: Dataset, runs: list[Run], recipe: Any) -> list[tuple[Any, dict[str, Any]]]:  # noqa: F811
    set_up(recipe)  # or a GPU's convolutions would add in an order of their own each time
    histories = fit_all(runs, digits.loader(recipe), None, recipe)
    return [(h, r.trainee.student.state_dict()) for h, r in zip(histories, runs, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [RECIPE, MODERN], ids=["sgd", "adamw"])
def test_students_in_turn_have_the_bits_of_each_alone(digits: Dataset, recipe: Any) -> None:  # noqa: F811
    """The objective draws random numbers in every step."""
    recipe = recipe.updated(BRIEF)
    alone = [trained(digits, [run(digits, seed)], recipe)[0] for seed in (1, 2, 3)]
    side_by_side = trained(digits, [run(digits, seed) for seed in (1, 2, 3)], recipe)
    for (history, weights), (other, others) in zip(alone, side_by_side, strict=True):
        assert history == other
        assert equal(weights, others)
    assert not equal(alone[0][1], alone[1][1])


def test_a_signal_stops_all_of_them_and_all_go_on(digits: Dataset, tmp_path: Path) -> None:  # noqa: F811
    recipe = RECIPE.updated(BRIEF)
    undisturbed = trained(digits, [run(digits, seed) for seed in (1, 2)], recipe)
    with pytest.raises(Preempted):
        trained(digits, [run(digits, 1, tmp_path), run(digits, 2, tmp_path, at=7)], recipe)
    states = [Checkpoint(tmp_path / f"{seed}.safetensors", f"run {seed}").load() for seed in (1, 2)]
    assert [found and (found[0].epoch, found[0].step) for found in states] == [(1, 3), (1, 2)]
    resumed = trained(digits, [run(digits, seed, tmp_path) for seed in (1, 2)], recipe)
    for (history, weights), (other, others) in zip(undisturbed, resumed, strict=True):
        assert history == other
        assert equal(weights, others)


def test_one_that_fails_takes_no_other_with_it(
    digits: Dataset,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else no retry would ever finish the others, and what they did since their last checkpoint would be lost."""
    recipe = RECIPE.updated(BRIEF)
    runs = [run(digits, seed, tmp_path) for seed in (1, 2, 3)]
    objective = runs[1].trainee.objective
    compute = objective.forward
    monkeypatch.setattr(objective, "forward", lambda batch: {k: v * math.nan for k, v in compute(batch).items()})
    with pytest.raises(DistilleryError, match="the training loss is nan in epoch 1"):
        trained(digits, runs, recipe)
    assert "seed 2 ends here (the training loss is nan in epoch 1" in capsys.readouterr().out
    kept = [Checkpoint(tmp_path / f"{seed}.safetensors", f"run {seed}").load() for seed in (1, 2, 3)]
    assert [found and found[0].epoch for found in kept] == [2, None, 2]


@pytest.mark.parametrize("at_once", [1, 2])
def test_one_that_fails_stops_none_behind_it(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def spoil(forward: Any, batch: Any) -> dict[str, torch.Tensor]:
        return {k: v * math.nan for k, v in forward(batch).items()}

    def spoilt(runs: list[Run], *rest: Any) -> Any:
        for objective in (each.trainee.objective for each in runs if each.seed == 1):
            monkeypatch.setattr(objective, "forward", partial(spoil, objective.forward))
        return fit_all(runs, *rest)

    monkeypatch.setattr(distill, "fit_all", spoilt)
    brief = small_study.STUDY["recipe"] | {"epochs": 1, "milestones": []}
    methods = {"ce": {"objective": "ce"}}
    small_study.write(
        {**small_study.STUDY, "recipe": brief, "methods": methods, "tables": {}, "seeds": ["0-3"], "at_once": at_once}
    )
    with pytest.raises(DistilleryError, match="the training loss is nan in epoch 1"):
        small_study.make()
    assert "seed 1 ends here (the training loss is nan in epoch 1" in capsys.readouterr().out
    _, plan = current(Path("params.yaml"))
    job = next(job for job in plan if job.stage == "distill")
    assert [path.exists() for path in job.checkpoints] == [True, False, True, True] and not job.record.exists()


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="streams need a CUDA device")


@needs_cuda
def test_captured_students_in_turn_have_the_bits_of_each_alone(digits: Dataset) -> None:  # noqa: F811
    on_device = digits.to(torch.device("cuda"))
    alone = [trained(on_device, [run(on_device, seed)], RECIPE)[0] for seed in (1, 2, 3)]
    side_by_side = trained(on_device, [run(on_device, seed) for seed in (1, 2, 3)], RECIPE)
    for (history, weights), (other, others) in zip(alone, side_by_side, strict=True):
        assert history == other
        assert equal(weights, others)
