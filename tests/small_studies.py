"""Small studies of every task, the shortest training from data to tables: what a kind of device is tried with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import small_cifar100
import small_generation
import small_study
import test_detection_training
import test_ranking_study
import test_retrieval
import test_staged
from small_boxes import pictures, write_voc
from small_ranking import write_users


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
