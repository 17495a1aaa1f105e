"""Every task's stages with a GPU that is not there: nothing that meets on the device is left on the CPU.

Each study is trained, measured and shown with its tensors marked as a GPU's (pretend_gpu.py): a batch, weight, index or
table on the wrong side fails here, not in the first hour on a cluster. Where there is a GPU, it trains each, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_cifar100
import small_generation
import small_study
import test_detection_training
import test_ranking_study
import test_retrieval
import test_staged
import torch
from pretend_gpu import NAME, There, forked, there_is_a_gpu
from small_boxes import pictures, write_voc
from small_ranking import write_users

from distillery.pipeline.planner import current
from distillery.records.io import read_json


def classes() -> dict[str, Any]:
    """A table, and teachers that are asked live."""
    methods = {
        "ce": {"objective": "ce"},
        "kd": {"objective": "kd", "plugins": {"standardise": {}}},
        "vkd": {"objective": "vkd"},
        "fitnet": {"objective": "fitnet"},
    }
    return small_study.STUDY | {"methods": methods, "cache": {"pooled": True}}


def photographs() -> dict[str, Any]:
    """Images decoded batch by batch, a replay table, mixed images, an average of the weights, a strong view."""
    mirror = small_cifar100.write_mirror(Path("mirror"))
    data = {"source": "streamed_cifar100", "mirror": str(mirror), "size": 32, "short_side": 32}
    subset = {"train_per_class": 4, "test_per_class": 2}
    mixed = {"augmentation": {"then": [{"name": "mixup_cutmix"}]}, "ema": {"decay": 0.9, "student": "average"}}
    methods = {"ce": {"objective": "ce", "recipe": mixed}, "kd": {"objective": "kd"}, "mlkd": {"objective": "mlkd"}}
    return small_study.STUDY | {
        "data": data | small_cifar100.OPTIONS | {"subset": subset},
        "recipe": {"batch_size": 8, "augmentation": {"flip": True, "scale": [0.5, 1.0]}},
        "methods": methods,
    }


def groups() -> dict[str, Any]:
    data = {"source": "trifeature", "train": 20, "test": 40}
    recipe = {"batch_size": 10, "augmentation": {"pad": 0, "flip": False}}
    return small_study.STUDY | {"task": "fairness", "data": data, "recipe": recipe}


def recommenders() -> dict[str, Any]:
    write_users(Path("users.dat"))
    return test_ranking_study.STUDY


def texts() -> dict[str, Any]:
    test_retrieval.write_texts(Path("texts.npz"))
    return test_retrieval.STUDY


def detectors() -> dict[str, Any]:
    write_voc(Path("files"), {"train": pictures(4, 0), "test": pictures(3, 1)})
    methods = {"alone": {"objective": "detect"}, "fgd": {"objective": "fgd"}, "ikd": {"objective": "ikd", "until": 1}}
    study = test_detection_training.STUDY
    return study | {"methods": methods, "pairs": {"r-r": study["pairs"]["r-r"]}}


def generators() -> dict[str, Any]:
    study = copy.deepcopy(small_generation.STUDY)
    study["task"] |= {"fraction": 0.1, "samples": 50}
    study["task"]["classifier"] = small_generation.judge(Path(), small_generation.digits(Path()))
    return study


def known() -> dict[str, Any]:
    return {
        "study": "small",
        "task": "known",
        "data": {"source": "gaussian", "train": 100, "test": 100},
        "recipe": {"batch_size": 20, "augmentation": {"pad": 0, "flip": False}},
        "teachers": {"exact": {"architecture": "bayes"}},
        "pairs": {"p": {"teacher": "exact", "student": "mlp1_w8"}},
        "methods": {"ce": {"objective": "ce"}, "kd": {"objective": "kd"}},
        "seeds": [0],
    }


STUDIES: dict[str, Callable[[], dict[str, Any]]] = {
    "classification": classes,
    "clips": lambda: test_staged.STUDY,
    "detection": detectors,
    "generation": generators,
    "fairness": groups,
    "known": known,
    "photographs": photographs,
    "ranking": recommenders,
    "retrieval": texts,
}


def write(kind: str, **brief: Any) -> None:
    """Put a study in place, its training as short as it can be."""
    study = STUDIES[kind]()
    teachers = {name: {k: v for k, v in t.items() if k != "recipe"} for name, t in study["teachers"].items()}
    recipe = {k: v for k, v in study["recipe"].items() if k != "milestones"} | {"epochs": 2, "test_every": 1} | brief
    recipe |= {} if "schedule" in recipe else {"milestones": []}
    small_study.write(study | {"recipe": recipe, "teachers": teachers, "seeds": [0]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDIES)
@forked
def test_a_study_ends_in_tables(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILLERY_WORKERS", "0")
    write(kind, graph=False)  # nothing can be captured here
    with there_is_a_gpu():
        assert small_study.make(tables=True)[-1] == "tables"
    made, plan = current(Path("params.yaml"))
    assert f"cuda,{NAME}" in Path("results", made.study, "runs.csv").read_text()
    for job in plan:
        if job.stage in ("teacher", "distill", "evaluate"):
            assert read_json(job.record)["environment"]["cuda_device"] == NAME, job.name


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_ends_in_tables_on_a_device(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(kind)
    assert small_study.make(tables=True)[-1] == "tables"


@forked
def test_what_a_gpu_refuses_is_refused() -> None:
    with there_is_a_gpu():
        far, near = torch.zeros(3, device="cuda:0"), torch.ones(3)
        rows = torch.tensor([0, 2])
        for wrong in (
            lambda: far + near,
            lambda: torch.cat([far, near]),
            lambda: near[rows.to("cuda:0")],
            lambda: far.__setitem__(rows, near[:2]),
            lambda: torch.nn.functional.linear(far, near),
        ):
            with pytest.raises(RuntimeError, match="left on the CPU"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            far.numpy()
        far[:] = near
        assert (far[rows] + torch.tensor(2.0)).cpu().tolist() == [3.0, 3.0]
        network = torch.nn.Linear(3, 1)
        weight = network.weight
        network.to("cuda:0")
        assert network.weight is weight and isinstance(weight, There) and weight.device.type == "cuda"
        network(far).sum().backward()
        assert isinstance(weight.grad, There) and weight.grad.cpu().tolist() == [[1.0, 1.0, 1.0]]
        assert not isinstance(network.to("cpu").weight, There)
