"""Detection: two processes that share every batch have the losses and the weights of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_boxes import pictures, write_voc

from distillery.data import prepare
from distillery.study.blocks import Method, Recipe
from distillery.tasks.detection import Detection
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.training import BoxTraining, build
from distillery.teachers.source import LiveTeachers
from distillery.training.loop import fit
from distillery.training.parallel import ALONE, Ranks

# Images of two sizes in one batch, so that padding counts; float64, so that a wrong formula cannot hide in rounding.
RECIPE = {
    **{"epochs": 1, "batch_size": 3, "lr": 0.001, "clip": 1.0, "precision": "float64"},
    "optimizer": {"name": "adamw"},
}
CASES = {"vkd_detection": "vidt_w24", "mgd": "retinanet_r10_w64"}


def run(index: Path, objective: str, ranks: Ranks) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    data, recipe, training = BoxData.load(index), Recipe(**RECIPE), BoxTraining(Detection())
    torch.manual_seed(1)
    teacher = build(CASES[objective], data.num_classes).double().eval()
    trainee = training.assemble(CASES[objective], Method(objective=objective), data, [teacher], 0)
    loader = training.loader(data, recipe)
    history = fit(trainee, loader, LiveTeachers([teacher], recipe), recipe, 0, ranks=ranks)
    return history, trainee.student.state_dict() | trainee.objective.state_dict()


def one_of_two(rank: int, index: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    for objective in CASES:
        found = run(index, objective, Ranks(rank, 2))
        if rank == 0:
            torch.save(found, folder / objective)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    root, index = tmp_path / "files", tmp_path / "data" / "index.safetensors"
    write_voc(root, {"train": [*pictures(3, 0), *pictures(3, 1, (64, 40))], "test": pictures(3, 2)})
    index.parent.mkdir()
    usual = {"root": str(root), "short_side": 40, "max_side": 64, "scales": [32, 40]}
    prepare("voc", usual, index, index.with_name("images.blob"))
    mp.spawn(one_of_two, (index, tmp_path), nprocs=2)
    for objective in CASES:
        alone, weights = run(index, objective, ALONE)
        together, shared = torch.load(tmp_path / objective, weights_only=True)
        for one, two in zip(alone, together, strict=True):
            assert two == pytest.approx(one, rel=1e-8, abs=1e-9)
        for name, value in weights.items():
            assert torch.allclose(shared[name].double(), value.double(), rtol=0, atol=1e-8), name
