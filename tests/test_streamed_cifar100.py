"""CIFAR-100 as a stream: the same pixels, and the studies of small transformers on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_cifar100 as small
import torch
from conftest import ROOT

from distillery.data import open_source, prepare
from distillery.data.dataset import Dataset
from distillery.data.photo_set import PhotoSet
from distillery.pipeline import check
from distillery.report.protocol import obstacles
from distillery.report.published import dataset_of, method_name, of_pair
from distillery.task import task_of


def options(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return small.OPTIONS | {"mirror": str(small.write_mirror(tmp_path / "mirror"))} | more


def streamed(tmp_path: Path, size: int, **more: Any) -> PhotoSet:
    keys = options(tmp_path, size=size, short_side=size, **more)
    prepare("streamed_cifar100", keys, tmp_path / "index", tmp_path / "blob")
    return PhotoSet.load(tmp_path / "index", tmp_path / "blob", verify=True)


def test_at_its_own_size_every_pixel_is_cifars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILLERY_WORKERS", "0")
    ours = streamed(tmp_path, 32)
    prepare("cifar100", small.OPTIONS | {"mirror": str(tmp_path / "mirror")}, tmp_path / "arrays")
    theirs = Dataset.load(tmp_path / "arrays")
    assert ours.class_names == theirs.class_names and (ours.mean, ours.std) == (theirs.mean, theirs.std)
    for split in ("train", "test"):
        for (images, labels), (whole, truth) in zip(ours.plain(split), theirs.plain(split), strict=True):
            assert torch.equal(images, whole) and torch.equal(labels, truth)
    assert ours.facts["counts"] == theirs.facts["counts"]


def test_enlarged_and_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILLERY_WORKERS", "0")
    imagenets = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    subset = {"classes": 3, "train_per_class": 4, "test_per_class": 2}
    data = streamed(tmp_path, 48, subset=subset, **imagenets)
    assert (len(data.train), len(data.test), data.num_classes) == (12, 6, 3)
    assert data.example().shape == (1, 3, 48, 48) and data.mean == (0.485, 0.456, 0.406)
    keys = small.OPTIONS | {"mirror": str(tmp_path / "mirror"), "subset": subset}
    selection = open_source("streamed_cifar100", keys).selection()
    assert "mirror" not in selection and selection["subset"] == subset


def test_published_numbers_are_found_for_the_small_transformers() -> None:
    found = 0
    for name in ("ls_vit", "ls_vit_others"):
        study = check.load(ROOT / "workflow" / "studies" / f"{name}.yaml")
        assert dataset_of(study.data.source) == "cifar100"
        for pair, spec in study.pairs.items():
            method = study.methods["kd_ls"].for_pair(pair)
            block = {"objective": method.objective, "plugins": method.plugins} | method.hyper
            facts = {
                "data": {"source": study.data.source, "counts": {"train": 50_000, "test": 10_000}},
                "recipe": study.recipe_for(pair, "kd_ls").effective(),
                "objective": block,
                "teachers": {},
            }
            cell: Any = SimpleNamespace(facts=facts, measure=task_of(study.task).main)
            entries = of_pair("cifar100", "top1", "resnet56", spec.student, str(method_name(method)))
            assert entries
            for entry in entries:
                assert obstacles(cell, entry) == []
                found += 1
    assert found == 12  # of four students the printed number, and the log's best and last epoch


def test_the_teacher_of_the_small_transformers_is_a_study_that_they_read() -> None:
    teacher = check.load(ROOT / "workflow" / "studies" / "ls_vit_teacher.yaml")
    for name in ("ls_vit", "ls_vit_others"):
        study = check.load(ROOT / "workflow" / "studies" / f"{name}.yaml")
        [block] = study.teachers.values()
        assert block.weights == f"artifacts/{teacher.study}/teachers/resnet56/model.safetensors"
        assert study.data.options["mean"] == teacher.data.options["mean"] and block.preprocessing.size == 32
        assert study.recipe.augmentation == teacher.recipe.augmentation
