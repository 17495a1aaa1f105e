"""Own images in numpy files: every form gives the same arrays; one sentence for whatever is wrong in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distillery.data import open_source, prepare
from distillery.data.arrays import Shape
from distillery.data.dataset import Dataset
from distillery.records.io import DistilleryError, load_tensors, sha256_file

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 6, 9, 3), dtype=np.uint8)
LABELS = RNG.permutation(np.repeat(np.arange(4), 10))


def written(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def made(folder: Path, **options: Any) -> dict[str, Any]:
    return prepare("npz", {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}, folder / "out")


def refused(folder: Path, match: str, **options: Any) -> None:
    with pytest.raises(DistilleryError, match=match) as caught:
        made(folder, **options)
    assert "\n" not in str(caught.value) and not (folder / "out").exists()


def test_one_file_is_split_by_content(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    facts = made(tmp_path, path=path)
    assert facts["counts"] == {"train": 32, "test": 8} and facts["class_names"] == list("0123")
    assert facts["shape"] == [6, 9, 3] and facts["selection"]["tested"] == "0.2 of each class, by content"
    assert open_source("npz", {"path": str(path)}).shape() == Shape(3, 6, 9, 4, 32, 8)
    data = Dataset.load(tmp_path / "out", verify=True)
    assert data.test_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    everything = torch.cat([data.train_images, data.test_images]).permute(0, 2, 3, 1).numpy()
    assert {i.tobytes() for i in everything} == {i.tobytes() for i in IMAGES}
    mixed = np.random.default_rng(1).permutation(40)
    made(tmp_path, path=written(tmp_path / "b.npz", images=IMAGES[mixed], labels=LABELS[mixed]))
    other = Dataset.load(tmp_path / "out").test_images  # the rows of the file in another order: the same are tested
    assert {i.numpy().tobytes() for i in other} == {i.numpy().tobytes() for i in data.test_images}
    assert made(tmp_path, path=path, test_fraction=0.5)["counts"] == {"train": 20, "test": 20}


def test_two_files_and_one_with_both_are_the_same(tmp_path: Path) -> None:
    rows = {"train": slice(0, 30), "test": slice(30, 40)}
    two = {s: written(tmp_path / f"{s}.npz", images=IMAGES[r], labels=LABELS[r]) for s, r in rows.items()}
    facts = made(tmp_path, **two)
    hashes = {sha256_file(tmp_path / "out")}
    names = {"medmnist": "{}_images {}_labels", "keras": "x_{} y_{}"}
    for form, template in names.items():
        arrays = {}
        for split, r in rows.items():
            first, second = template.format(split, split).split()
            arrays |= {first: IMAGES[r], second: LABELS[r][:, None] if form == "medmnist" else LABELS[r]}
        assert made(tmp_path, path=written(tmp_path / "both.npz", **arrays)) == facts
        hashes.add(sha256_file(tmp_path / "out"))
    assert len(hashes) == 1
    data = Dataset.load(tmp_path / "out", verify=True)
    order = np.argsort(LABELS[:30], kind="stable")
    assert np.array_equal(data.train_images.permute(0, 2, 3, 1), IMAGES[:30][order])
    (tmp_path / "out").unlink()
    refused(
        tmp_path,
        "^data.test_fraction has no effect: .*both.npz has test",
        path=tmp_path / "both.npz",
        test_fraction=0.1,
    )


def test_grey_images_names_and_repeated_ones(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = np.array(["a", "b", "ç", "d"])
    train = written(tmp_path / "t.npz", images=IMAGES[..., 0], labels=LABELS.astype(np.uint16), class_names=names)
    test = written(tmp_path / "v.npz", images=IMAGES[..., 0], labels=LABELS.astype(np.int8))
    facts = made(tmp_path, train=train, test=test, mean=[0.5], std=[0.25])
    assert facts["class_names"] == ["a", "b", "ç", "d"] and facts["shape"] == [6, 9, 1] and facts["mean"] == [0.5]
    assert facts["selection"]["repeated"] == 40 and "40 of 40 test images" in capfd.readouterr().out
    (tmp_path / "out").unlink()
    refused(tmp_path, r"data\.mean has 3 numbers, but the images 1 channel", path=train, mean=[0, 0, 0], std=[1, 1, 1])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_fractions_that_are_whole_numbers_over_255(kind: Any, tmp_path: Path) -> None:
    exact = made(tmp_path, path=written(tmp_path / "a.npz", images=IMAGES, labels=LABELS))
    fractions = (IMAGES.astype(np.float32) / 255).astype(kind)
    assert (
        made(tmp_path, path=written(tmp_path / "b.npz", images=fractions, labels=LABELS))["content"] == exact["content"]
    )
    product = IMAGES.astype(np.float32) * np.float32(1 / 255)
    assert (
        made(tmp_path, path=written(tmp_path / "c.npz", images=product, labels=LABELS))["content"] == exact["content"]
    )


def test_other_fractions_need_a_scale(tmp_path: Path) -> None:
    fractions = RNG.random((40, 6, 9, 3))
    path = written(tmp_path / "a.npz", images=fractions, labels=LABELS)
    refused(tmp_path, r"image 0 has fractions that are not k/255, .*: set `data\.scale: 255` to have", path=path)
    made(tmp_path, path=path, scale=255)
    found = {
        i.numpy().tobytes()
        for i in torch.cat([load_tensors(tmp_path / "out")[f"{s}_images"] for s in ("train", "test")])
    }
    assert found == {i.tobytes() for i in np.rint(fractions * 255).astype(np.uint8)}
    (tmp_path / "out").unlink()
    refused(tmp_path, r"image \d has pixels from .* to 0\.9.*: give 0\.\.1, or", path=path, scale=300)
    whole = written(tmp_path / "b.npz", images=IMAGES, labels=LABELS)
    refused(
        tmp_path, r"^data\.scale has no effect: .*b\.npz: images is uint8 already; leave it out$", path=whole, scale=255
    )


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "channels first": ({"images": IMAGES.transpose(0, 3, 1, 2)}, r"shape \(40, 3, 6, 9\), channels first: transpose"),
    "flat": ({"images": IMAGES.reshape(40, -1)}, r"images has shape \(40, 162\): give \(N, H, W\), or"),
    "two channels": ({"images": IMAGES[..., :2]}, r"shape \(40, 6, 9, 2\): give .* with 1 or 3 channels$"),
    "no images": ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"labels has shape \(0,\): give one label for each"),
    "no size": ({"images": IMAGES[:, :0]}, r"shape \(40, 0, 9, 3\): give"),
    "whole numbers": ({"images": IMAGES.astype(np.int64)}, r"images is of type int64: store pixels as uint8"),
    "objects": ({"images": IMAGES.astype(object)}, r"images is Python objects: store|holds Python objects"),
    "nan": ({"images": np.where(IMAGES == 7, np.nan, IMAGES / 255)}, r"image \d+ holds NaN or infinity: mend it$"),
    "beyond one": ({"images": IMAGES / 1.0}, r"image 0 has pixels from \d+ to \d+: give 0\.\.1, or `data\.scale`"),
    "below zero": ({"images": IMAGES / 255 - 0.5}, r"image 0 has pixels from -0\.5"),
    "fewer labels": ({"labels": LABELS[:39]}, r"has 40 images, but 39 labels$"),
    "labels of objects": (
        {"labels": LABELS.astype(object)},
        r"cannot read .* \(it holds Python objects\): write it anew",
    ),
    "fractions as labels": ({"labels": LABELS / 1.0}, r"labels is of type float64: give whole numbers \(and names as"),
    "text as labels": ({"labels": LABELS.astype(str)}, r"labels is of type <U\d+: give whole numbers"),
    "one-hot labels": ({"labels": np.eye(4)[LABELS]}, r"labels has shape \(40, 4\): give one label for each image$"),
    "negative": ({"labels": LABELS - 1}, r"labels holds -1: labels count from 0$"),
    "huge": ({"labels": LABELS + 10**9}, r"labels holds 10000000\d\d: labels end at 65535$"),
    "a gap": ({"labels": LABELS * 2}, r"too few images of '1', '3', '5': every class needs one for training and one"),
    "beyond the names": (
        {"class_names": np.array(["a", "b", "c"])},
        r"label 3 is beyond the 3 class names, which count",
    ),
    "a name too many": ({"class_names": np.array([*"abcde"])}, r"too few images of 'e': every class needs"),
    "a name twice": ({"class_names": np.array([*"abca"])}, r"class_names has a name twice: give each class"),
    "numbers as names": ({"class_names": np.arange(4)}, r"class_names is int64 of shape \(4,\): give a list of texts$"),
    "bytes as names": ({"class_names": np.array([b"\xff", b"b", b"c", b"d"])}, r"class_names are not UTF-8: store"),
    "misnamed": ({"image": IMAGES, "images": None}, r"a\.npz has no array 'images': did you mean 'image'\?$"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_refused(case: str, tmp_path: Path) -> None:
    changed, match = WRONG[case]
    arrays = {"images": IMAGES, "labels": LABELS} | changed
    path = written(tmp_path / "a.npz", **{name: array for name, array in arrays.items() if array is not None})
    refused(tmp_path, match, path=path)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    refused(tmp_path, r"^there is no file .*b\.npz: correct `data:`$", path=tmp_path / "b.npz")
    (tmp_path / "b.npz").write_bytes(path.read_bytes()[:500])
    refused(
        tmp_path, r"^cannot read .*b\.npz \(.+\): write it anew by numpy\.savez_compressed$", path=tmp_path / "b.npz"
    )
    (tmp_path / "b.npz").write_text("no archive")
    refused(tmp_path, r"^cannot read .*b\.npz \(.+\): write it anew", path=tmp_path / "b.npz")
    np.save(tmp_path / "b.npy", IMAGES)
    refused(tmp_path, r"b\.npy is one array, not an \.npz file", path=tmp_path / "b.npy")
    refused(tmp_path, r"^cannot read .* \(Is a directory\)|directory", path=tmp_path)
    broken = bytearray(path.read_bytes())
    broken[2000:2100] = bytes(100)
    (tmp_path / "b.npz").write_bytes(broken)
    refused(tmp_path, r"^cannot read .*b\.npz", path=tmp_path / "b.npz")
    small = written(tmp_path / "c.npz", images=IMAGES[:, :4], labels=LABELS)
    refused(tmp_path, r"a\.npz has images of 6 x 9 x 3, but .*c\.npz 4 x 9 x 3$", train=path, test=small)
    few = written(tmp_path / "d.npz", images=IMAGES[LABELS > 0], labels=LABELS[LABELS > 0])
    refused(tmp_path, r"d\.npz has too few images of '0': every class", train=path, test=few)


@pytest.mark.parametrize("others", [["b", "a", "c", "d"], ["a", "b", "c", "d", "e"]])
def test_both_files_number_the_classes_alike(others: list[str], tmp_path: Path) -> None:
    train = written(tmp_path / "a.npz", images=IMAGES, labels=LABELS, class_names=[*"abcd"])
    test = written(tmp_path / "b.npz", images=IMAGES, labels=LABELS, class_names=others)
    refused(tmp_path, r"class \d is '.?' in .*a\.npz, but '.' in .*b\.npz: number", train=train, test=test)


def test_wrong_options_are_refused() -> None:
    for options, match in (
        ({}, r"data\.path: give either this, or `train` and `test`"),
        ({"path": "a", "train": "b"}, r"data\.path: give either"),
        ({"train": "b"}, r"data\.path: give either"),
        ({"train": "a", "test": "b", "test_fraction": 0.1}, r"data\.test_fraction: has no effect where `test`"),
        (
            {"path": "a", "mean": [0.1, 0.2, 0.3], "std": [1]},
            r"data\.mean and std: give both or neither, with a number",
        ),
        ({"path": "a", "scale": 0}, r"data\.scale: greater than 0, not 0"),
    ):
        with pytest.raises(DistilleryError, match=match):
            open_source("npz", options)


def test_more_than_256_classes(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (800, 2, 2), dtype=np.uint8)
    facts = made(
        tmp_path, path=written(tmp_path / "a.npz", images=images, labels=np.arange(800) % 400), test_fraction=0.5
    )
    assert facts["num_classes"] == 400 and load_tensors(tmp_path / "out")["test_labels"].dtype == torch.uint16
    assert Dataset.load(tmp_path / "out").test_labels.tolist() == list(range(400))
