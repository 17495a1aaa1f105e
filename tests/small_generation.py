"""The smallest study of generation: 8 x 8 digits, two channels, and a classifier that judges them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distillery import models
from distillery.data import prepare
from distillery.data.dataset import Dataset
from distillery.records.header import Header
from distillery.records.io import save_tensors, sha256_file

STUDY: dict[str, Any] = {
    "study": "small",
    "task": {"name": "generation", "fraction": 0.5, "samples": 100},
    "data": {"source": "digits", "test_fraction": 0.5},
    "recipe": {
        "epochs": 4,
        "batch_size": 30,
        "lr": 0.002,
        "optimizer": {"name": "adam", "betas": [0.0, 0.999]},
        "weight_decay": 0.0,
        "milestones": [],
        "augmentation": {"pad": 0, "flip": False},
        "test_every": 2,
    },
    "teachers": {"t": {"architecture": "resnet8_w4", "recipe": {"epochs": 2, "test_every": 1}}},
    "pairs": {"t-s": {"teacher": "t", "student": "biggan_ch2"}},
    "methods": {
        "gan": {"objective": "gan", "label": "no teacher", "d_steps": 1, "ema_decay": 0.9, "ema_start": 5},
        "vkd": {"objective": "vkd_gan", "label": "VkD", "d_steps": 1, "ema_decay": 0.9, "ema_start": 5},
    },
    "seeds": ["0-1"],
    "tables": {"baseline": "gan"},
}


def digits(folder: Path) -> Dataset:
    prepare("digits", {"test_fraction": 0.5}, folder / "arrays.safetensors")
    return Dataset.load(folder / "arrays.safetensors")


def judge(folder: Path, data: Dataset, architecture: str = "resnet8_w4") -> dict[str, str]:
    """Write a classifier of drawn weights, as a study's teacher: the keys of `task.classifier`."""
    torch.manual_seed(1)
    network = models.build(architecture, data.num_classes, data.channels)
    header = Header.of(
        data, kind="teacher", study="judge", teacher="judge", seeds=(0,), architecture=architecture, settings_sha256=""
    )
    path = folder / "judge.safetensors"
    save_tensors(path, network.state_dict(), header.metadata())
    return {"architecture": architecture, "weights": str(path), "sha256": sha256_file(path)}
