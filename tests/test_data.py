"""Sources and canonical arrays: the same bytes by every route, and one sentence for whatever goes wrong on the way."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import pickle
import pickletools
import socket
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distillery.artifacts import DistilleryError, StaleInput, load_tensors, sha256_array, sha256_file, write_json
from distillery.data import SOURCES, check_options, cifar100, cifar100_archive, prepare
from distillery.data.dataset import Dataset


def make(source: str, options: dict[str, Any], folder: Path) -> Dataset:
    write_json(folder / "data.json", prepare(source, options, folder))
    return Dataset.load(folder, verify=True)


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# --- options


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(DistilleryError, match=r"data\.source: unknown name 'cifar10'; did you mean 'cifar100'\?"):
        check_options("cifar10", {})
    with pytest.raises(DistilleryError, match=r"data\.miror: unknown name 'miror'; did you mean 'mirror'\?"):
        check_options("cifar100", {"miror": "x"})
    with pytest.raises(DistilleryError, match=r"data\.flip: unknown name 'flip'; known: test_fraction"):
        check_options("digits", {"flip": True})
    assert list(SOURCES) == ["digits", "cifar100"]


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
    assert sha256_file(tmp_path / "a" / "arrays.safetensors") == sha256_file(tmp_path / "b" / "arrays.safetensors")
    assert first["sha256"]["test_images"] == "a7d0ce680892feaddae711624434d9b8978663b02cf73388fc9aa2aa4a7fc884"
    assert first["sha256"]["train_images"] == "9c029555da12fa29f8aaf024a10c9f2e81aed616b3e862de343a9c3c14f8c86e"
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
    with pytest.raises(DistilleryError, match=r"data\.test_fraction is"):
        prepare("digits", {"test_fraction": fraction}, tmp_path)


# --- Dataset


def test_changed_arrays_are_noticed(tmp_path: Path) -> None:
    data = make("digits", {}, tmp_path)
    path = tmp_path / "arrays.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + bytes(100) + whole[2100:])
    assert torch.equal(Dataset.load(tmp_path).train_labels, data.train_labels)  # the quick look sees the name only
    with pytest.raises(StaleInput, match=r"is not the file that data\.json beside it describes; run the data stage"):
        Dataset.load(tmp_path, verify=True)
    make("digits", {"test_fraction": 0.25}, tmp_path)
    (other := tmp_path / "other").mkdir()
    prepare("digits", {}, other)
    (other / "data.json").write_bytes((tmp_path / "data.json").read_bytes())
    for verify in (False, True):
        with pytest.raises(StaleInput):
            Dataset.load(other, verify=verify)
    path.write_bytes(whole[:-1])
    with pytest.raises(DistilleryError, match="damaged or cut short"):
        Dataset.load(tmp_path)
    path.unlink()
    with pytest.raises(DistilleryError, match="is missing; run the stage"):
        Dataset.load(tmp_path)


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


def test_to_moves_every_tensor_but_the_rows_of_tables(digits: Dataset) -> None:
    moved = digits.hold_out(0.1, seed=0).to("meta")
    tensors = [getattr(moved, k) for k in moved.__slots__ if isinstance(getattr(moved, k), torch.Tensor)]
    assert len(tensors) == 7 and [t.is_meta for t in tensors].count(False) == 1 and not moved.rows.is_meta
    assert moved.num_classes == 10


# --- a small CIFAR-100 in both official formats


@dataclass
class Small:
    """300 training and 60 test images of 6 classes, in scrambled order, with the options that describe them."""

    splits: dict[str, dict[str, Any]]
    options: dict[str, Any]

    @staticmethod
    def build() -> Small:
        rng = np.random.default_rng(0)
        splits = {}
        for split, each in (("train", 50), ("test", 10)):
            n = 6 * each
            splits[split] = {
                "images": rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
                "labels": rng.permutation(np.repeat(np.arange(6), each)),
                "coarse": rng.integers(0, 3, n),
                # Unequal lengths, capitals and digits: an order that only comparing bytes gets right.
                "filenames": [f"{rng.choice(['a', 'B', 'a_b', 'ab'])}_s_{i:06d}.png" for i in rng.permutation(n)],
            }
        hashes = {}
        for split, rows in splits.items():
            order = sorted(range(len(rows["labels"])), key=lambda i: (rows["labels"][i], rows["filenames"][i].encode()))
            for key in ("images", "labels", "coarse"):
                array = np.asarray(rows[key], dtype=np.uint8)[order]
                hashes[f"{split}_{key}"] = hashlib.sha256(array.tobytes()).hexdigest()
        return Small(splits, {"sha256": hashes})

    NAMES = ("apple", "bear", "castle", "dolphin", "elephant", "forest")

    def write_mirror(self, folder: Path) -> Path:
        folder.mkdir()
        for split, rows in self.splits.items():
            for part in (0, 1) if split == "train" else (slice(None),):
                keep = part if isinstance(part, slice) else np.flatnonzero(rows["labels"] // 3 == part)
                name = "test.npz" if split == "test" else f"train_classes_{part}.npz"
                np.savez(
                    folder / name,
                    images=rows["images"][keep],
                    fine_labels=rows["labels"][keep].astype(np.uint8),
                    coarse_labels=rows["coarse"][keep].astype(np.uint8),
                    filenames=np.array(rows["filenames"], dtype="S")[keep],
                )
        (folder / "cifar100_labels.json").write_text(json.dumps({"fine_label_names": self.NAMES}))
        return folder

    def write_archive(self, file: Path, **replaced: bytes) -> dict[str, str]:
        """Write an archive in the official format; return the md5 sums."""
        content = {
            split: python2_pickle(
                {
                    "filenames": rows["filenames"],
                    "batch_label": f"{split}ing batch 1 of 1",
                    "fine_labels": rows["labels"].tolist(),
                    "coarse_labels": rows["coarse"].tolist(),
                    "data": rows["images"].transpose(0, 3, 1, 2).reshape(-1, 3072),
                }
            )
            for split, rows in self.splits.items()
        }
        content["meta"] = python2_pickle({"fine_label_names": list(self.NAMES), "coarse_label_names": list("xyz")})
        content |= replaced
        with tarfile.open(file, "w:gz") as archive:
            for name, data in content.items():
                member = tarfile.TarInfo(name if name.startswith("..") else f"cifar-100-python/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        md5 = {name: hashlib.md5(data).hexdigest() for name, data in content.items()}
        return md5 | {"archive": hashlib.md5(file.read_bytes()).hexdigest()}


def python2_pickle(obj: Any) -> bytes:
    """Pickle as Python 2 did for the official files: protocol 2, byte strings, numpy's old module names."""

    def emit(x: Any) -> bytes:
        if isinstance(x, str):
            return b"U" + bytes([len(x)]) + x.encode()
        if isinstance(x, int):
            return b"J" + struct.pack("<i", x)
        if isinstance(x, list):
            return b"](" + b"".join(map(emit, x)) + b"e"
        if isinstance(x, dict):
            return b"}(" + b"".join(emit(k) + emit(v) for k, v in x.items()) + b"u"
        dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        raw = b"T" + struct.pack("<i", x.nbytes) + x.tobytes()
        shape = b"".join(map(emit, x.shape))
        head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        return head + b"(K\x01(" + shape + b"t" + dtype + b"\x89" + raw + b"tb"

    data = b"\x80\x02" + emit(obj) + b"."
    pickletools.dis(data, out=io.StringIO())  # raises if it is not a pickle
    return data


@dataclass
class Server:
    """A web server on loopback that counts requests and can be told to misbehave."""

    url: str
    requests: list[str]
    tamper: Callable[[bytes], bytes] = bytes
    status: int = 200


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (folder := tmp_path / "served").mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.command)
            body = (folder / Path(self.path).name).read_bytes()
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(state.tamper(body))

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{httpd.server_port}/cifar-100-python.tar.gz", [])
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def small() -> Small:
    return Small.build()


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cifar100.MIRROR_VARIABLE, raising=False)


@pytest.fixture
def archive(small: Small, server: Server, tmp_path: Path) -> dict[str, Any]:
    """The options that fetch the small archive from the server."""
    md5 = small.write_archive(tmp_path / "served" / "cifar-100-python.tar.gz")
    return {**small.options, "url": server.url, "md5": md5, "download_dir": str(tmp_path / "cache")}


def test_archive_and_mirror_give_identical_bytes(
    small: Small, archive: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = small.write_mirror(tmp_path / "mirror")
    records = [
        prepare("cifar100", archive, tmp_path / "a"),
        prepare("cifar100", {**small.options, "mirror": str(mirror)}, tmp_path / "b"),
    ]
    monkeypatch.setenv(cifar100.MIRROR_VARIABLE, str(mirror))
    records.append(prepare("cifar100", small.options, tmp_path / "c"))
    assert records[0] == records[1] == records[2]
    assert len({sha256_file(tmp_path / name / "arrays.safetensors") for name in "abc"}) == 1
    assert records[0]["sha256"] == small.options["sha256"]
    assert records[0]["class_names"] == list(small.NAMES)
    assert records[0]["counts"] == {"train": 300, "test": 60}
    write_json(tmp_path / "a" / "data.json", records[0])
    data = Dataset.load(tmp_path / "a", verify=True)
    rows = small.splits["test"]
    first = min((i for i in range(60) if rows["labels"][i] == 0), key=lambda i: rows["filenames"][i].encode())
    assert np.array_equal(data.test_images[0].permute(1, 2, 0), rows["images"][first])


def test_archive_is_kept_for_the_next_time(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    first = prepare("cifar100", archive, tmp_path / "a")
    assert everything(tmp_path / "cache") == ["cifar-100-python.tar.gz"]
    asked = len(server.requests)
    assert prepare("cifar100", archive, tmp_path / "b") == first
    assert len(server.requests) == asked
    kept = tmp_path / "cache" / "cifar-100-python.tar.gz"
    kept.write_bytes(kept.read_bytes()[:1000])  # damaged since: fetched again
    assert prepare("cifar100", archive, tmp_path / "c") == first
    assert len(server.requests) > asked
    assert sha256_file(kept) == sha256_file(tmp_path / "served" / "cifar-100-python.tar.gz")


REFUSED = (
    r"^cannot download CIFAR-100 from http://127\.0\.0\.1:\d+/cifar-100-python\.tar\.gz \(.+\); try again, or name a "
    r"local copy by `data\.mirror` in params\.yaml or by the environment variable DISTILLERY_CIFAR100$"
)


def refused(options: dict[str, Any], tmp_path: Path, match: str = REFUSED) -> None:
    with pytest.raises(DistilleryError, match=match) as caught:
        prepare("cifar100", options, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert everything(tmp_path / "cache") == []
    assert not (tmp_path / "out").exists()


def test_truncated_download_leaves_nothing(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    server.tamper = lambda body: body[: len(body) // 2]
    refused(archive, tmp_path)


def test_altered_download_leaves_nothing(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    server.tamper = lambda body: body[:-20] + bytes(20)
    refused(archive, tmp_path)


def test_error_page_leaves_nothing(archive: dict[str, Any], server: Server, tmp_path: Path) -> None:
    server.status = 404
    refused(archive, tmp_path)


def test_dead_server_leaves_nothing(archive: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/cifar-100-python.tar.gz"
    refused({**archive, "url": url}, tmp_path)


def test_silent_server_leaves_nothing(archive: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar100_archive, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cifar-100-python.tar.gz"
        refused({**archive, "url": url}, tmp_path)
    assert socket.getdefaulttimeout() is None


def test_wrong_member_leaves_nothing(archive: dict[str, Any], tmp_path: Path) -> None:
    refused({**archive, "md5": {**archive["md5"], "test": "0" * 32}}, tmp_path)
    refused({**archive, "md5": {**archive["md5"], "meta": "0" * 32}}, tmp_path)


def test_bad_address_leaves_nothing(archive: dict[str, Any], tmp_path: Path) -> None:
    refused({**archive, "url": "not an address"}, tmp_path, match=r"^cannot download CIFAR-100 from not an address")


def test_member_outside_the_folder_is_refused(
    small: Small, archive: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    md5 = small.write_archive(tmp_path / "served" / "cifar-100-python.tar.gz", **{"../../evil": b"x"})
    refused({**archive, "md5": md5}, tmp_path)
    assert not list(tmp_path.rglob("evil"))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))


def test_pickles_cannot_run_anything(
    small: Small, archive: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for bad in (pickle.dumps(Evil(), protocol=2), b"not a pickle", python2_pickle({"a": "b"})[:-4]):
        md5 = small.write_archive(tmp_path / "served" / "cifar-100-python.tar.gz", train=bad)
        refused({**archive, "md5": md5}, tmp_path, match="^the file train in the CIFAR-100 archive is not the official")
    assert not (tmp_path / "evil").exists()


def test_other_content_than_expected_is_refused(archive: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        DistilleryError, match=r"^the downloaded archive is not the official CIFAR-100: train_images has"
    ):
        prepare("cifar100", {**archive, "sha256": {}}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_mirrors_are_one_sentence(small: Small, tmp_path: Path) -> None:
    mirror = small.write_mirror(tmp_path / "mirror")
    options = {**small.options, "mirror": str(mirror)}

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
        (mirror / name).unlink()
        broken("train_images has 150 rows" if "train" in name else rf"cannot read .*{name} .*\(it is missing\)")
        (mirror / name).write_bytes(whole)
    np.savez(mirror / "test.npz", images=np.array([Evil()], dtype=object))  # numpy would have to unpickle it
    broken(r"cannot read .*test\.npz")
    for name in ("train_classes_0.npz", "train_classes_1.npz"):
        (mirror / name).unlink()
    broken(r"holds no train_classes_\*\.npz: it is no CIFAR-100 mirror")


def test_subset_is_deterministic_and_balanced(small: Small, tmp_path: Path) -> None:
    mirror = {**small.options, "mirror": str(small.write_mirror(tmp_path / "mirror"))}
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
def test_bad_subset_is_one_sentence(subset: Any, small: Small, tmp_path: Path) -> None:
    mirror = small.write_mirror(tmp_path / "mirror")
    with pytest.raises(DistilleryError, match=r"^data\.subset"):
        prepare("cifar100", {**small.options, "mirror": str(mirror), "subset": subset}, tmp_path / "out")


# --- the real CIFAR-100


def test_the_official_meta_pickle_is_read(shared_dir: Path) -> None:
    meta = shared_dir / "data" / "cifar100" / "meta"
    assert hashlib.md5(meta.read_bytes()).hexdigest() == cifar100_archive.CIFAR100.meta["md5"]
    names = json.loads((meta.parent / "cifar100_labels.json").read_text())
    found = cifar100_archive._unpickle(meta)
    assert found["fine_label_names"] == names["fine_label_names"]
    assert found["coarse_label_names"] == names["coarse_label_names"]


@pytest.mark.slow
def test_real_arrays_have_the_published_hashes(shared_dir: Path, tmp_path: Path) -> None:
    record = prepare("cifar100", {"mirror": str(shared_dir / "data" / "cifar100")}, tmp_path)
    published = (shared_dir / "data" / "README.md").read_text()
    assert len(record["sha256"]) == 6 and all(f"`{value}`" in published for value in record["sha256"].values())
    assert record["counts"] == {"train": 50000, "test": 10000} and record["num_classes"] == 100
    tensors = load_tensors(tmp_path / "arrays.safetensors")
    assert {name: sha256_array(tensor) for name, tensor in tensors.items()} == record["sha256"]
    pixels = tensors["train_images"].double().div(255).flatten(0, 2)
    assert torch.allclose(pixels.mean(0), torch.tensor(record["mean"]).double(), atol=2e-4)
    assert torch.allclose(pixels.std(0), torch.tensor(record["std"]).double(), atol=2e-4)
