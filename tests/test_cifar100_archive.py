"""CIFAR-100 from its archive: the same bytes as from a mirror, and one sentence for whatever goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import pickle
import socket
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_cifar100 as small
from loopback import Server, nobody, silent

from distillery.data import cifar100, cifar_archive, prepare
from distillery.data.dataset import Dataset
from distillery.records.io import DistilleryError, sha256_file

ARCHIVE = "cifar-100-python.tar.gz"


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cifar100.MIRROR_VARIABLE, raising=False)


@pytest.fixture
def archive(server: Server, tmp_path: Path) -> dict[str, Any]:
    """The options that fetch the small archive from the server."""
    md5 = small.write_archive(server.folder / ARCHIVE)
    return {**small.OPTIONS, "url": f"{server.url}/{ARCHIVE}", "md5": md5, "download_dir": str(tmp_path / "cache")}


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_archive_and_mirror_give_identical_bytes(
    archive: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = small.write_mirror(tmp_path / "mirror")
    records = [
        prepare("cifar100", archive, tmp_path / "a"),
        prepare("cifar100", {**small.OPTIONS, "mirror": str(mirror)}, tmp_path / "b"),
    ]
    monkeypatch.setenv(cifar100.MIRROR_VARIABLE, str(mirror))
    records.append(prepare("cifar100", small.OPTIONS, tmp_path / "c"))
    assert records[0] == records[1] == records[2]
    assert len({sha256_file(tmp_path / name) for name in "abc"}) == 1
    assert records[0]["sha256_of"] == small.OPTIONS["sha256"]
    assert records[0]["class_names"] == list(small.NAMES)
    assert records[0]["counts"] == {"train": 300, "test": 60}
    data = Dataset.load(tmp_path / "a", verify=True)
    rows = small.SPLITS["test"]
    first = min((i for i in range(60) if rows["labels"][i] == 0), key=lambda i: rows["filenames"][i].encode())
    assert np.array_equal(data.test_images[0].permute(1, 2, 0), rows["images"][first])


def test_archive_is_kept_for_the_next_time(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    first = prepare("cifar100", archive, tmp_path / "a")
    assert everything(tmp_path / "cache") == [ARCHIVE]
    asked = len(server.asked)
    assert prepare("cifar100", archive, tmp_path / "b") == first
    assert len(server.asked) == asked
    kept = tmp_path / "cache" / ARCHIVE
    kept.write_bytes(kept.read_bytes()[:1000])  # damaged since: fetched again
    assert prepare("cifar100", archive, tmp_path / "c") == first
    assert len(server.asked) > asked
    assert sha256_file(kept) == sha256_file(server.folder / ARCHIVE)


REFUSED = (
    r"^cannot download CIFAR-100 from http://127\.0\.0\.1:\d+/cifar-100-python\.tar\.gz \(.+\); try again, or name a "
    r"local copy by `data\.mirror` or by the environment variable DISTILLERY_CIFAR100$"
)


def refused(options: dict[str, Any], tmp_path: Path, match: str = REFUSED) -> None:
    with pytest.raises(DistilleryError, match=match) as caught:
        prepare("cifar100", options, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert everything(tmp_path / "cache") == []
    assert not (tmp_path / "out").exists()


def test_truncated_download_leaves_nothing(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    server.sends = lambda body: body[: len(body) // 2]
    refused(archive, tmp_path)


def test_altered_download_leaves_nothing(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    server.sends = lambda body: body[:-20] + bytes(20)
    refused(archive, tmp_path)


def test_error_page_leaves_nothing(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    server.status[ARCHIVE] = [404, 404]  # to HEAD and to GET
    refused(archive, tmp_path)


def test_dead_server_leaves_nothing(archive: dict[str, Any], tmp_path: Path) -> None:
    refused({**archive, "url": f"{nobody()}/{ARCHIVE}"}, tmp_path)


def test_silent_server_leaves_nothing(archive: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar_archive, "TIMEOUT", 0.2)
    with silent() as url:
        refused({**archive, "url": f"{url}/{ARCHIVE}"}, tmp_path)
    assert socket.getdefaulttimeout() is None


def test_wrong_member_leaves_nothing(archive: dict[str, Any], tmp_path: Path) -> None:
    refused({**archive, "md5": {**archive["md5"], "test": "0" * 32}}, tmp_path)
    refused({**archive, "md5": {**archive["md5"], "meta": "0" * 32}}, tmp_path)


def test_bad_address_leaves_nothing(archive: dict[str, Any], tmp_path: Path) -> None:
    refused({**archive, "url": "not an address"}, tmp_path, match=r"^cannot download CIFAR-100 from not an address")


@pytest.mark.parametrize("python", ["3.11.4", "3.11.0"])
def test_member_outside_the_folder_is_refused(
    archive: dict[str, Any], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    if python == "3.11.0":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)  # torchvision then extracts without one
    md5 = small.write_archive(server.folder / ARCHIVE, **{"../../evil": b"x"})
    refused({**archive, "md5": md5}, tmp_path)
    assert not list(tmp_path.rglob("evil"))


def test_pickles_cannot_run_anything(
    archive: dict[str, Any], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for bad in (pickle.dumps(small.Evil(), protocol=2), b"not a pickle", small.python2_pickle({"a": "b"})[:-4]):
        md5 = small.write_archive(server.folder / ARCHIVE, train=bad)
        refused({**archive, "md5": md5}, tmp_path, match="^the file train in the CIFAR-100 archive is not the official")
    assert not (tmp_path / "evil").exists()


def test_other_content_than_expected_is_refused(archive: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        DistilleryError, match=r"^the downloaded archive is not the official CIFAR-100: train_images has"
    ):
        prepare("cifar100", {**archive, "sha256": {}}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_official_meta_pickle_is_read(shared_dir: Path) -> None:
    meta = shared_dir / "data" / "cifar100" / "meta"
    assert hashlib.md5(meta.read_bytes()).hexdigest() == cifar_archive.CIFAR100.official.meta["md5"]
    names = json.loads((meta.parent / "cifar100_labels.json").read_text())
    found = cifar_archive._unpickle(meta, cifar_archive.CIFAR100)
    assert found["fine_label_names"] == names["fine_label_names"]
    assert found["coarse_label_names"] == names["coarse_label_names"]
