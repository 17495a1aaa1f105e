"""Sources of data and the arrays made of them: their options, the digits, what a Dataset checks and does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distillery.data import SOURCES, open_source, prepare
from distillery.data.dataset import Dataset
from distillery.records.io import DistilleryError, StaleInput, load_tensors, read_metadata, save_tensors, sha256_file


def make(source: str, options: dict[str, Any], folder: Path) -> Dataset:
    path = folder / "arrays.safetensors"
    prepare(source, options, path)
    return Dataset.load(path, verify=True)


# --- options


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(DistilleryError, match=r"unknown data source 'cifar-100': did you mean 'cifar100'\?"):
        open_source("cifar-100", {})
    with pytest.raises(DistilleryError, match=r"unknown key 'data\.miror': did you mean 'mirror'\?"):
        open_source("cifar100", {"miror": "x"})
    with pytest.raises(DistilleryError, match=r"unknown key 'data\.flip': known: test_fraction"):
        open_source("digits", {"flip": True})


def test_which_sources_are_streamed() -> None:
    known = {"streamed_folder", "streamed_cifar100", "imagenet"}
    assert {name for name in SOURCES if SOURCES[name].load().streamed} == known


# --- digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make("digits", {}, tmp_path_factory.mktemp("digits"))


def test_digits_are_all_there_and_split_by_the_declared_rule(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    found = load_digits()
    for label in range(10):
        train = digits.train_images[digits.train_labels == label][:, 0].numpy().tolist()
        test = digits.test_images[digits.test_labels == label][:, 0].numpy().tolist()
        tested, m = [], len(test)
        for image in found.images[found.target == label].tolist():  # both parts keep the original order
            tested.append(bool(test) and image == test[0])
            (test if tested[-1] else train).pop(0)
        assert not test and not train and sum(tested) == m == round(len(tested) / 2)
        gaps = np.diff(np.flatnonzero(tested))
        assert gaps.min() >= 1 and gaps.max() <= 3 and 1.9 < gaps.mean() < 2.1
    assert len(digits.train_labels) + len(digits.test_labels) == 1797
    assert 100 / len(digits.test_labels) < 0.12
    assert digits.train_images.dtype == torch.uint8 and digits.train_images.max() == 16
    assert (digits.train_labels.diff() >= 0).all()


def test_digits_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    first, second = (prepare("digits", {}, tmp_path / name) for name in "ab")
    assert first == second
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")
    assert first["sha256_of"]["test_images"] == "a7d0ce680892feaddae711624434d9b8978663b02cf73388fc9aa2aa4a7fc884"
    assert first["sha256_of"]["train_images"] == "9c029555da12fa29f8aaf024a10c9f2e81aed616b3e862de343a9c3c14f8c86e"
    assert first["counts"] == {"train": 899, "test": 898}
    assert first["shape"] == [8, 8, 1] and first["num_classes"] == 10 and first["scale"] == 16


def test_normalised_digits_have_zero_mean_and_unit_deviation(digits: Dataset) -> None:
    images = digits.normalise(digits.train_images, torch.float64)
    assert abs(images.mean()) < 2e-4
    assert abs(images.std() - 1) < 2e-4


@pytest.mark.parametrize("fraction", [0.1, 0.25, 1 / 3, 0.9])
def test_test_fraction_holds_in_every_class(fraction: float, tmp_path: Path) -> None:
    data = make("digits", {"test_fraction": fraction}, tmp_path)
    train, test = data.train_labels.bincount(), data.test_labels.bincount()
    assert (test == ((train + test) * fraction).round()).all()


@pytest.mark.parametrize("fraction", [0, 1, 0.0, 1.0, -0.5, "half", 0.0001, 0.9999, float("nan")])
def test_bad_test_fraction_is_one_sentence(fraction: Any, tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match=r"^(data\.)?test_fraction(:| 0\.\d+ leaves) "):
        prepare("digits", {"test_fraction": fraction}, tmp_path / "arrays.safetensors")


# --- Dataset


def test_changed_arrays_are_noticed(tmp_path: Path) -> None:
    data = make("digits", {}, tmp_path)
    path = tmp_path / "arrays.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + bytes(100) + whole[2100:])
    assert torch.equal(Dataset.load(path).train_labels, data.train_labels)  # the quick look does not hash
    with pytest.raises(StaleInput, match="does not hold the arrays that it describes; run the data stage again"):
        Dataset.load(path, verify=True)
    make("digits", {"test_fraction": 0.25}, tmp_path)
    arrays, facts = load_tensors(path), read_metadata(path)
    other = tmp_path / "other.safetensors"
    prepare("digits", {}, other)
    save_tensors(other, load_tensors(other), facts)  # the facts of another selection
    with pytest.raises(StaleInput):
        Dataset.load(other, verify=True)
    save_tensors(other, arrays)  # a file of the same form that is none of ours
    for verify in (False, True):
        with pytest.raises(StaleInput):
            Dataset.load(other, verify=verify)
    path.write_bytes(whole[:-1])
    with pytest.raises(DistilleryError, match="damaged or cut short"):
        Dataset.load(path)
    path.unlink()
    with pytest.raises(DistilleryError, match="is missing"):
        Dataset.load(path)


def test_hold_out_is_stratified_and_deterministic(digits: Dataset) -> None:
    held = digits.hold_out(0.2, seed=3)
    assert held.val_images is not None and held.val_labels is not None
    assert torch.equal(held.val_labels.bincount(), (digits.train_labels.bincount() * 0.2).round().long())
    assert torch.equal(digits.train_images[held.rows], held.train_images)
    assert torch.equal(digits.train_labels[held.rows], held.train_labels)
    rest = torch.ones(len(digits.train_labels), dtype=torch.bool)
    rest[held.rows] = False
    assert torch.equal(digits.train_images[rest], held.val_images)
    assert torch.equal(held.rows, digits.hold_out(0.2, seed=3).rows)
    assert not torch.equal(held.rows, digits.hold_out(0.2, seed=4).rows)
    assert held.evaluation_splits().keys() == {"test", "val"}
    assert digits.hold_out(0.0, seed=3) is digits and digits.evaluation_splits().keys() == {"test"}


@pytest.mark.parametrize(
    ("fraction", "sentence"),
    [(0.003, "holds out no image: .* the largest has 13"), (0.97, "holds out all 10 image")],
)
def test_a_share_that_leaves_one_side_empty_is_refused(digits: Dataset, fraction: float, sentence: str) -> None:
    few = torch.cat([(digits.train_labels == label).nonzero()[: 10 + label // 3, 0] for label in range(10)])
    part = dataclasses.replace(
        digits, train_images=digits.train_images[few], train_labels=digits.train_labels[few], rows=digits.rows[few]
    )
    with pytest.raises(DistilleryError, match=f"recipe.validation {fraction} {sentence}"):
        part.hold_out(fraction)


def test_to_moves_every_tensor_but_the_rows_of_tables(digits: Dataset) -> None:
    moved = digits.hold_out(0.1, seed=0).to("meta")
    tensors = [getattr(moved, k) for k in moved.__slots__ if isinstance(getattr(moved, k), torch.Tensor)]
    assert len(tensors) == 7 and [t.is_meta for t in tensors].count(False) == 1 and not moved.rows.is_meta
    assert moved.num_classes == 10
