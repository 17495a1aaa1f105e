"""Checkpoints as training scripts leave them: the weights are found in each, and what cannot be used is named."""

from __future__ import annotations

import argparse
import datetime
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoints import NAME, TEACHER, get, refused, same, saved
from torch import Tensor

from distillery import models
from distillery.models.official import identify

pytestmark = [pytest.mark.usefixtures("downloads"), pytest.mark.slow]


def under(prefix: str, weights: dict[str, Tensor] = TEACHER) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in weights.items()}


OTHER = {key: value + 1 for key, value in TEACHER.items()}
BIGGER = models.build("resnet14_w4", 10, 1).state_dict()
NAMESPACE = argparse.Namespace(lr=0.1, gpus=[0], when=datetime.datetime(2020, 1, 1))
GOOD: dict[str, tuple[Any, str | None]] = {
    "the weights alone": (TEACHER, None),
    "mdistiller, latest": ({"model": under("module.student.") | under("module.teacher.", BIGGER), "epoch": 1}, "model"),
    "mdistiller, one GPU": ({"model": under("student."), "optimizer": {"lr": 0.1}}, "model"),
    "RepDistiller, last": ({"opt": NAMESPACE, "model": TEACHER, "optimizer": {}}, "model"),
    "pytorch-cifar": ({"net": under("module."), "acc": 95.1, "epoch": 1}, "net"),
    "PyTorch's examples": ({"state_dict": under("module."), "best_acc1": torch.tensor(70.0)}, "state_dict"),
    "PyTorch's tutorial": ({"model_state_dict": TEACHER, "optimizer_state_dict": {}}, "model_state_dict"),
    "Lightning": ({"state_dict": under("model.") | {"criterion.weight": torch.ones(10)}}, "state_dict"),
    "compiled": ({"model": under("_orig_mod.")}, "model"),
    "compiled, distributed": ({"model": under("module._orig_mod.")}, "model"),
    "swa_utils": ({"n_averaged": torch.tensor(3)} | under("module."), None),
    "averaged beside the plain ones": ({"state_dict_ema": OTHER, "state_dict": TEACHER}, "state_dict"),
    "averaged alone": ({"state_dict_ema": TEACHER, "epoch": 3}, "state_dict_ema"),
    "wrapped twice": ({"model": {"state_dict": TEACHER}}, "model.state_dict"),
    "numpy scores": ({"model": TEACHER, "best": np.float64(72.3), "n": np.int64(3), "ok": np.bool_(True)}, "model"),
    "numpy arrays": ({"model": TEACHER, "confusion": np.eye(3), "names": np.array(["a"])}, "model"),
    "paths": ({"model": TEACHER, "config": {"root": Path("data")}}, "model"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_the_weights_are_found(tmp_path: Path, kind: str) -> None:
    content, part = GOOD[kind]
    for old in (False, True):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
        found, weights = get(str(tmp_path / "a.pth"))
        assert same(weights, TEACHER)
        assert found.part == part


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast(tmp_path: Path, dtype: torch.dtype) -> None:
    cast = {k: t.to(dtype) if t.is_floating_point() else t for k, t in TEACHER.items()}
    (tmp_path / "a.pth").write_bytes(saved({"model": cast}))
    weights = get(str(tmp_path / "a.pth"))[1]
    assert same(weights, {k: t.to(TEACHER[k].dtype) for k, t in cast.items()})
    assert all(t.dtype == TEACHER[k].dtype for k, t in weights.items())


def test_our_own_students(tmp_path: Path) -> None:
    file, extra = tmp_path / "students.safetensors", {"0.objective.weight": torch.ones(2)}
    file.write_bytes(safetensors.torch.save(under("0.student.") | extra))
    found, weights = get(str(file))
    assert same(weights, TEACHER) and found.part == "0.student"
    several = under("0.student.", OTHER) | under("2.student.", OTHER) | under("10.student.") | extra
    file.write_bytes(safetensors.torch.save({k: t.clone() for k, t in several.items()}))
    for member in ("10", "10.student"):
        found, weights = get(str(file), member=member)
        assert same(weights, TEACHER) and found.part == "10.student"
    told = 'holds 0.student, 2.student, 10.student: choose one of them as `member`, for example `member: "0.student"`'
    for wrong in (None, "1", "x/y.pth"):
        assert told in refused(str(file), member=wrong)


def bad() -> dict[str, tuple[bytes, str]]:
    network = models.build(NAME, 10, 1)
    nan = TEACHER | {"conv1.weight": torch.full_like(TEACHER["conv1.weight"], torch.nan)}
    integers = {k: t.to(torch.int8) for k, t in TEACHER.items()}
    hundred = models.build(NAME, 100, 1).state_dict()
    colour = under("module.", models.build("resnet14_w4", 10, 3).state_dict())
    known = "these are the weights of a"
    return {
        "a module": (saved(network), "a whole pickled module and not only weights (it asks for distillery.models."),
        "a module inside": (saved({"net": network}), "`torch.save(torch.load('in.pth', map_location='cpu', "),
        "NaN": (saved({"model": nan}), "conv1.weight holds NaN or infinity, so this training diverged"),
        "quantised": (saved(integers), "holds torch.int8 numbers, so these weights are quantised"),
        "another head": (saved({"model": hundred}), f"{known} {NAME} for 100 classes and images of 1 channel)"),
        "another network": (saved(colour), f"{known} resnet14_w4 for 10 classes and images of 3 channels)"),
        "no network of ours": (saved({"a.weight": torch.ones(3)}), "unexpected: a.weight))"),
        "no weights": (saved({"optimizer": {"lr": 0.1}}), "no state dict, neither alone nor under a usual name"),
    }


@pytest.mark.parametrize("kind", bad())
def test_what_cannot_be_used_is_named(tmp_path: Path, kind: str) -> None:
    content, told = bad()[kind]
    (tmp_path / "a.pth").write_bytes(content)
    assert told in refused(str(tmp_path / "a.pth"))


def test_a_program_is_named(tmp_path: Path) -> None:
    class Doubling(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Doubling(), torch.ones(1)).save(str(tmp_path / "a.pt"))
    assert "a TorchScript archive, which is a program" in refused(str(tmp_path / "a.pt"))


def test_options_cannot_bring_code_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do objects of the tolerated kinds come to life: stand-ins take their place."""
    monkeypatch.chdir(tmp_path)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch evil",)

    for holder in (argparse.Namespace(x=Evil()), np.array([Evil()], dtype=object), [Evil()]):
        Path("a.pth").write_bytes(saved({"model": TEACHER, "opt": holder}))
        assert "its pickle asks for posix.system, which was refused" in refused("a.pth")
    assert not Path("evil").exists()
    recursive: dict[str, Any] = {"model": {}}
    recursive["model"]["model"] = recursive
    Path("a.pth").write_bytes(saved(recursive))
    assert "it holds no state dict" in refused("a.pth")


def test_every_network_is_known_by_its_weights() -> None:
    for name in models.NETWORKS:
        with torch.device("meta"):
            weights = models.build(name, 7, 1).state_dict()
        assert identify(weights) == f"{name} for 7 classes and images of 1 channel"
