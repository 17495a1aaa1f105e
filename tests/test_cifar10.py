"""CIFAR-10 by every route: the same bytes; verified by the official md5 sums, or by the published mean."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_cifar100 as small
from loopback import Server

from distillery.data import cifar10, cifar_archive, open_source, prepare
from distillery.data.dataset import Dataset
from distillery.records.io import DistilleryError, sha256_file

ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
RNG = np.random.default_rng(0)


def drawn(each: int) -> dict[str, Any]:
    n = 10 * each
    names = [f"{RNG.choice(['a', 'B', 'a_b'])}_s_{i:06d}.png" for i in RNG.permutation(n)]
    return {
        "images": RNG.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
        "labels": RNG.permutation(np.repeat(np.arange(10), each)),
        "filenames": [*names[:-2], names[0], names[0]],  # a name that comes twice, or three times
    }


SPLITS = {"train": drawn(10), "test": drawn(3)}


def files() -> dict[str, bytes]:
    """The files of the official archive: five batches, a test batch, the names."""
    content = {}
    for split, rows in SPLITS.items():
        parts = np.array_split(np.arange(len(rows["labels"])), 5 if split == "train" else 1)
        for i, part in enumerate(parts, 1):
            content["test_batch" if split == "test" else f"data_batch_{i}"] = small.python2_pickle(
                {
                    "batch_label": f"batch {i}",
                    "labels": rows["labels"][part].tolist(),
                    "data": rows["images"][part].transpose(0, 3, 1, 2).reshape(-1, 3072),
                    "filenames": [rows["filenames"][j] for j in part],
                }
            )
    return content | {"batches.meta": small.python2_pickle({"num_vis": 3072, "label_names": cifar10.NAMES})}


def write_archive(file: Path) -> dict[str, str]:
    with tarfile.open(file, "w:gz") as archive:
        for name, data in files().items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return {n: hashlib.md5(d).hexdigest() for n, d in files().items()} | {
        "archive": hashlib.md5(file.read_bytes()).hexdigest()
    }


def write_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, data in files().items():
        (folder / name).write_bytes(data)
    return folder


def write_mirror(folder: Path) -> Path:
    folder.mkdir()
    for split, rows in SPLITS.items():
        mixed = RNG.permutation(len(rows["labels"]))
        names = np.array(rows["filenames"], dtype="S")[mixed]
        np.savez(folder / f"{split}.npz", images=rows["images"][mixed], labels=rows["labels"][mixed], filenames=names)
    return folder


@pytest.fixture
def archive(server: Server, tmp_path: Path) -> dict[str, Any]:
    """The options that fetch the small archive from the server."""
    md5 = write_archive(server.folder / ARCHIVE)
    return {"url": f"{server.url}/{ARCHIVE}", "md5": md5, "download_dir": str(tmp_path / "cache")}


def test_every_route_gives_the_same_bytes(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    facts = [prepare("cifar10", archive, tmp_path / "0")]
    asked = len(server.asked)
    facts.append(prepare("cifar10", archive, tmp_path / "1"))  # kept from the first time
    assert len(server.asked) == asked
    folder = write_folder(tmp_path / "root" / FOLDER)
    kept = tmp_path / "cache" / ARCHIVE
    for form in (kept, kept.parent, folder, folder.parent):
        facts.append(prepare("cifar10", {"md5": archive["md5"], "mirror": str(form)}, tmp_path / str(len(facts))))
    mirror = {"mirror": str(write_mirror(tmp_path / "mirror")), "sha256": facts[0]["sha256_of"]}
    facts.append(prepare("cifar10", mirror, tmp_path / str(len(facts))))
    assert all(fact == facts[0] for fact in facts)
    assert len({sha256_file(tmp_path / str(i)) for i in range(len(facts))}) == 1
    assert facts[0]["counts"] == {"train": 100, "test": 30} and facts[0]["class_names"] == cifar10.NAMES
    assert (facts[0]["mean"], facts[0]["std"]) == ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
    rows, data = SPLITS["test"], Dataset.load(tmp_path / "0", verify=True)
    order = sorted(range(30), key=lambda i: (rows["labels"][i], rows["filenames"][i].encode()))
    assert np.array_equal(data.test_images[0].permute(1, 2, 0), rows["images"][order[0]])


def refused(options: dict[str, Any], folder: Path, match: str) -> None:
    with pytest.raises(DistilleryError, match=match) as caught:
        prepare("cifar10", options, folder / "out")
    assert "\n" not in str(caught.value) and not (folder / "out").exists()


def test_altered_copies_are_refused(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / FOLDER)
    refused(
        {"mirror": str(folder)},
        tmp_path,
        r"^cannot read CIFAR-10 from .* \(its file data_batch_1 has md5 \w{12}, not c99cafc15224\): name the official "
        r"cifar-10-python\.tar\.gz, whole, or the folder in it$",
    )
    (folder / "data_batch_3").write_bytes(pickle.dumps(small.Evil(), protocol=2))
    refused({"mirror": str(folder), "md5": archive["md5"]}, tmp_path, "its file data_batch_3 has md5")
    (folder / "data_batch_3").unlink()
    refused({"mirror": str(folder)}, tmp_path, r"holds no train\.npz and is neither the official archive nor its")
    refused({"mirror": str(tmp_path / "no")}, tmp_path, r"no does not exist; correct `data\.mirror`$")
    broken = tmp_path / "broken.tgz"
    broken.write_bytes((server.folder / ARCHIVE).read_bytes()[:2000])
    refused({"mirror": str(broken)}, tmp_path, r"^cannot read CIFAR-10 from .*broken\.tgz")
    server.sends = lambda body: body[:-20] + bytes(20)
    refused(
        archive,
        tmp_path,
        r"^cannot download CIFAR-10 from http.* \(.+\); try again, or name a local copy by `data\.mirror`$",
    )
    assert not list((tmp_path / "cache").iterdir())


def test_mirrors_are_held_to_numbers_and_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = write_mirror(tmp_path / "mirror")
    refused(
        {"mirror": str(mirror)}, tmp_path, r"not the whole CIFAR-10: not every class has 5,000 train images; copy it"
    )
    monkeypatch.setattr(cifar10, "COUNTS", {"train": 10, "test": 3})
    refused(
        {"mirror": str(mirror)}, tmp_path, r"is not CIFAR-10 bit for bit: mean and deviation of its training pixels"
    )
    wrong = {"mirror": str(mirror), "sha256": {"train_images": "0" * 64}}
    refused(wrong, tmp_path, r"train_images does not have the sha256 that `data\.sha256` asks for$")
    shutil.copy(mirror / "test.npz", tmp_path / "test.npz")
    (mirror / "test.npz").write_bytes(b"x")
    refused({"mirror": str(mirror)}, tmp_path, r"^cannot read .*test\.npz of the CIFAR-10 mirror \(it is damaged")


def test_what_is_official_is_known_beforehand() -> None:
    archive = cifar_archive.CIFAR10
    assert archive.files == [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
    assert archive.sums({})["test_batch"] == "40351d587109b95175f43aff81a1287e"
    shape = open_source("cifar10", {}).shape()
    assert shape and (shape.num_classes, shape.train_images, shape.height) == (10, 50_000, 32)
