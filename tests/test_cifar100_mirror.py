"""CIFAR-100 from a mirror folder: what a mirror may lack, subsets, and the published hashes of the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_cifar100 as small
import torch

from distillery.data import prepare
from distillery.data.dataset import Dataset
from distillery.records.io import DistilleryError, load_tensors, sha256_array


def make(source: str, options: dict[str, Any], folder: Path) -> Dataset:
    path = folder / "arrays.safetensors"
    prepare(source, options, path)
    return Dataset.load(path, verify=True)


def test_bad_mirrors_are_one_sentence(tmp_path: Path) -> None:
    mirror = small.write_mirror(tmp_path / "mirror")
    options = {**small.OPTIONS, "mirror": str(mirror)}

    def broken(match: str) -> None:
        with pytest.raises(DistilleryError, match=match) as caught:
            prepare("cifar100", options, tmp_path / "out")
        assert "\n" not in str(caught.value) and str(mirror) in str(caught.value)
        assert not (tmp_path / "out").exists()

    for name in ("train_classes_1.npz", "test.npz", "cifar100_labels.json"):
        whole = (mirror / name).read_bytes()
        for cut in (0, len(whole) // 2, len(whole) - 10):
            (mirror / name).write_bytes(whole[:cut])
            broken(
                rf"cannot read .*{name} of the CIFAR-100 mirror \(it is damaged or cut short: .*copy the mirror again"
            )
        if name.endswith(".json"):
            for content in ("[]", "[" * 100_000):
                (mirror / name).write_text(content)
                broken(rf"cannot read .*{name} of the CIFAR-100 mirror \(it is damaged or cut short: ")
        (mirror / name).unlink()
        broken("train_images has 150 rows" if "train" in name else rf"cannot read .*{name} .*\(it is missing\)")
        (mirror / name).write_bytes(whole)
    np.savez(mirror / "test.npz", images=np.array([small.Evil()], dtype=object))  # numpy would have to unpickle it
    broken(r"cannot read .*test\.npz")
    for name in ("train_classes_0.npz", "train_classes_1.npz"):
        (mirror / name).unlink()
    broken(r"holds no train_classes_\*\.npz: it is no CIFAR-100 mirror")


def test_subset_is_deterministic_and_balanced(tmp_path: Path) -> None:
    mirror = {**small.OPTIONS, "mirror": str(small.write_mirror(tmp_path / "mirror"))}
    subset = {"classes": 4, "train_per_class": 7, "test_per_class": 3}
    data = make("cifar100", {**mirror, "subset": subset}, tmp_path / "a")
    assert data.train_labels.bincount().tolist() == [7] * 4 and data.test_labels.bincount().tolist() == [3] * 4
    assert data.class_names == small.NAMES[:4]
    whole = make("cifar100", mirror, tmp_path / "b")
    assert len(whole.train_labels) == 300
    larger = make("cifar100", {**mirror, "subset": {**subset, "train_per_class": 20}}, tmp_path / "c")
    pixels = [{image.numpy().tobytes() for image in d.train_images} for d in (data, larger, whole)]
    assert pixels[0] < pixels[1] < pixels[2]
    assert prepare("cifar100", {**mirror, "subset": subset}, tmp_path / "d")["selection"] == {"subset": subset}


@pytest.mark.parametrize(
    "subset", [{"classes": 7}, {"classes": 0}, {"train_per_class": 51}, {"test_per_class": "all"}, {"clases": 3}, 5]
)
def test_bad_subset_is_one_sentence(subset: Any, tmp_path: Path) -> None:
    mirror = small.write_mirror(tmp_path / "mirror")
    with pytest.raises(DistilleryError, match=r"^(unknown key ')?data\.subset"):
        prepare("cifar100", {**small.OPTIONS, "mirror": str(mirror), "subset": subset}, tmp_path / "out")


@pytest.mark.slow
def test_real_arrays_have_the_published_hashes(shared_dir: Path, tmp_path: Path) -> None:
    record = prepare("cifar100", {"mirror": str(shared_dir / "data" / "cifar100")}, tmp_path / "arrays.safetensors")
    published = (shared_dir / "data" / "README.md").read_text()
    assert len(record["sha256_of"]) == 6 and all(f"`{value}`" in published for value in record["sha256_of"].values())
    assert record["counts"] == {"train": 50000, "test": 10000} and record["num_classes"] == 100
    tensors = load_tensors(tmp_path / "arrays.safetensors")
    assert {name: sha256_array(tensor) for name, tensor in tensors.items()} == record["sha256_of"]
    pixels = tensors["train_images"].double().div(255).flatten(0, 2)
    assert torch.allclose(pixels.mean(0), torch.tensor(record["mean"]).double(), atol=2e-4)
    assert torch.allclose(pixels.std(0), torch.tensor(record["std"]).double(), atol=2e-4)
