"""CIFAR-100 that lies on the machine already, in any of its forms: the same bytes; or one sentence."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_cifar100 as small

from distillery.data import cifar100, prepare
from distillery.records.io import DistilleryError, sha256_file

ARCHIVE, FOLDER = "cifar-100-python.tar.gz", "cifar-100-python"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No mirror is named, and nothing may be downloaded."""
    monkeypatch.delenv(cifar100.MIRROR_VARIABLE, raising=False)
    monkeypatch.setenv("DISTILLERY_CACHE", str(tmp_path / "cache"))


def forms(folder: Path) -> list[Path]:
    """A mirror, the archive under two names, the extracted folder, and folders that hold one of them."""
    mirror = small.write_mirror(folder / "mirror")
    (folder / "kept").mkdir()
    small.write_archive(folder / "kept" / ARCHIVE)
    shutil.copy(folder / "kept" / ARCHIVE, folder / "renamed.tgz")
    extracted = small.write_folder(folder / "root" / FOLDER)
    return [mirror, folder / "kept" / ARCHIVE, folder / "renamed.tgz", folder / "kept", extracted, extracted.parent]


def test_all_forms_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records, hashes = [], set()
    for i, form in enumerate(forms(tmp_path)):
        before = sorted(tmp_path.rglob("*"))
        records.append(
            prepare(
                "cifar100", {**small.OPTIONS, "mirror": str(form)}, tmp_path / "out" / f"{i}a" / "arrays.safetensors"
            )
        )
        monkeypatch.setenv(cifar100.MIRROR_VARIABLE, str(form))
        records.append(prepare("cifar100", small.OPTIONS, tmp_path / "out" / f"{i}b" / "arrays.safetensors"))
        monkeypatch.delenv(cifar100.MIRROR_VARIABLE)
        hashes |= {sha256_file(path) for path in (tmp_path / "out").rglob("arrays.safetensors")}
        shutil.rmtree(tmp_path / "out")
        assert sorted(tmp_path.rglob("*")) == before  # nothing is extracted anywhere
    assert len(hashes) == 1
    assert all(record == records[0] for record in records)
    assert records[0]["sha256_of"] == small.OPTIONS["sha256"]


def refused(place: Path, folder: Path, match: str) -> None:
    with pytest.raises(DistilleryError, match=match) as caught:
        prepare("cifar100", {**small.OPTIONS, "mirror": str(place)}, folder / "out")
    assert "\n" not in str(caught.value)
    assert not (folder / "out").exists()


def test_what_is_none_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "it is no CIFAR-100 mirror, nor is it the official cifar-100-python.tar.gz")
    refused(tmp_path / "nowhere.tar.gz", tmp_path, r"nowhere\.tar\.gz does not exist; correct `data\.mirror`")
    whole = tmp_path / ARCHIVE
    small.write_archive(whole)
    content = whole.read_bytes()
    for cut in (0, 100, len(content) // 2):
        whole.write_bytes(content[:cut])
        refused(
            whole, tmp_path, rf"^(cannot read CIFAR-100 from .*{ARCHIVE} \(.*\): name the|the file \w+ in the CIFAR)"
        )
    whole.write_text("<html>moved</html>")
    refused(whole, tmp_path, rf"^cannot read CIFAR-100 from .*{ARCHIVE} \(.*\): name the official")
    small.write_archive(whole, train=pickle.dumps(small.Evil(), protocol=2))
    refused(whole, tmp_path, "^the file train in the CIFAR-100 archive is not the official one")
    folder = small.write_folder(tmp_path / FOLDER, meta=small.python2_pickle({"label_names": ["CIFAR-10"]}))
    refused(folder, tmp_path, r"^cannot read CIFAR-100 from .*cifar-100-python \('fine_label_names'\)")
    (folder / "test").unlink()
    refused(folder, tmp_path, "it is no CIFAR-100 mirror")
    other = small.write_folder(tmp_path / "other" / FOLDER, test=small.files(small.SPLITS, small.NAMES)["train"])
    refused(other, tmp_path, "is not the official CIFAR-100: test_images has 300 rows")
    assert not (tmp_path / "evil").exists()


@pytest.mark.skipif(not os.geteuid(), reason="root may read everything")
def test_an_archive_that_may_not_be_read(tmp_path: Path) -> None:
    small.write_archive(tmp_path / ARCHIVE)
    (tmp_path / ARCHIVE).chmod(0)
    refused(tmp_path / ARCHIVE, tmp_path, "Permission denied")


@pytest.mark.slow
def test_the_real_folder_has_the_published_hashes(shared_dir: Path, tmp_path: Path) -> None:
    mirror = shared_dir / "data" / "cifar100"
    order, splits = np.random.default_rng(0), {}
    for split, names in {"train": sorted(mirror.glob("train_classes_*.npz")), "test": [mirror / "test.npz"]}.items():
        pieces = [dict(np.load(name, allow_pickle=False)) for name in names]
        rows = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        mixed = order.permutation(len(rows["fine_labels"]))
        files = [name.decode() for name in rows["filenames"][mixed].tolist()]
        splits[split] = {"images": rows["images"][mixed], "labels": rows["fine_labels"][mixed], "filenames": files}
        splits[split]["coarse"] = rows["coarse_labels"][mixed]
    names = json.loads((mirror / "cifar100_labels.json").read_text())["fine_label_names"]
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name, content in small.files(splits, names).items():
        (folder / name).write_bytes(content)
    record = prepare("cifar100", {"mirror": str(folder)}, tmp_path / "out")
    assert record["sha256_of"] == cifar100.SHA256
