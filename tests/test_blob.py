"""Blobs: what is let in, in which order, and one sentence for whatever is wrong with a file or with the blob."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_images import drawn, photos, save
from PIL import Image

from distillery.data import blob as blobs
from distillery.data import open_source, prepare
from distillery.data.blob import AS_IS, PLAIN, UPRIGHT, Blob, examine
from distillery.data.dataset import Dataset
from distillery.data.listing import Photo
from distillery.data.photo_set import PhotoSet
from distillery.data.streamed import Streamed, prepare_blob
from distillery.records.io import DistilleryError, StaleInput, load_arrays, read_metadata, save_tensors, sha256_file


def streamed(root: Path, **options: Any) -> Streamed:
    source = open_source("streamed_folder", {"root": str(root), "size": 16} | options)
    assert isinstance(source, Streamed) and source.streamed
    return source


def made(root: Path, folder: Path | None = None, **options: Any) -> dict[str, Any]:
    """Prepare a folder's blob; return the facts."""
    folder = folder or root.parent
    return prepare_blob("streamed_folder", streamed(root, **options), folder / "arrays.safetensors", folder / "x.blob")


def loaded(folder: Path, verify: bool = False) -> PhotoSet:
    return PhotoSet.load(folder / "arrays.safetensors", folder / "x.blob", verify)


def refused(root: Path, match: str, **options: Any) -> str:
    """Prepare a folder, which fails in one sentence and leaves nothing."""
    with pytest.raises(DistilleryError, match=match) as caught:
        made(root, **options)
    left = [path.name for path in root.parent.iterdir() if path != root]
    assert "\n" not in str(caught.value) and left == []
    return str(caught.value)


# --- what is in it


def test_the_original_bytes_in_canonical_order(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 4, ("train", "val"))
    facts = made(root)
    data, blob = loaded(tmp_path, verify=True), Blob(tmp_path / "x.blob")
    for split, folder in ((data.train, "train"), (data.test, "val")):
        names = [f"{folder}/{name}/{i:03d}.jpg" for name in ("cool", "warm") for i in range(4)]
        assert split.names.tobytes().decode().split("\0") == names
        assert split.labels.tolist() == [0] * 4 + [1] * 4
        for i, name in enumerate(names):
            content = (root / name).read_bytes()
            assert blob.read(int(split.offset[i]), int(split.length[i])) == content
            assert split.sha256[i].tobytes() == hashlib.sha256(content).digest()
            with Image.open(root / name) as image:
                assert (split.width[i], split.height[i]) == image.size
    assert facts["blob"] == {
        "sha256": sha256_file(tmp_path / "x.blob"),
        "bytes": sum(path.stat().st_size for path in root.rglob("*.jpg")),
    }
    assert facts["class_names"] == ["cool", "warm"] and facts["counts"] == {"train": 8, "test": 8}
    assert facts["shape"] == [16, 16, 3] and facts["short_side"] == 18 and data.size == (16, 16)
    assert facts["selection"]["tested"] == "the folder val" and "root" not in facts["selection"]


def test_split_and_constants_are_those_of_the_resident_source(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 10)
    facts = made(root)
    resident = prepare("folder", {"root": str(root), "size": 16}, tmp_path / "resident.safetensors")
    assert {k: facts[k] for k in ("mean", "std", "counts", "class_names")} == {
        k: resident[k] for k in ("mean", "std", "counts", "class_names")
    }
    assert loaded(tmp_path).test.labels.tolist() == Dataset.load(tmp_path / "resident.safetensors").test_labels.tolist()


def test_order_of_files_and_threads_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = photos(tmp_path / "a" / "photos", 6), tmp_path / "b" / "other name"
    for path in sorted(first.rglob("*.jpg"), reverse=True):
        (second / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, second / path.parent.name / path.name)
    facts = made(first)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert made(second) == facts
    for name in ("arrays.safetensors", "x.blob"):
        assert sha256_file(first.parent / name) == sha256_file(second.parent / name)


def test_the_same_images_are_held_out_as_of_arrays(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 10)
    made(root)
    prepare("folder", {"root": str(root), "size": 16}, tmp_path / "resident.safetensors")
    mine = loaded(tmp_path).hold_out(0.25, seed=3)
    other = Dataset.load(tmp_path / "resident.safetensors").hold_out(0.25, seed=3)
    assert torch.equal(mine.rows, other.rows) and len(mine.val_rows) == 4
    assert torch.equal(mine.train_labels, other.train_labels)
    assert sorted([*mine.rows.tolist(), *mine.val_rows.tolist()]) == list(range(16))


# --- kinds of images


def kinds(folder: Path) -> dict[str, Path]:
    """One image of every kind; the names say which."""
    picture = drawn(1)
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    see_through = picture.convert("RGBA")
    see_through.putalpha(128)
    return {
        "colour": save(picture, folder / "colour.jpg"),
        "grey": save(picture.convert("L"), folder / "grey.jpg"),
        "cmyk": save(picture.convert("CMYK"), folder / "cmyk.jpg"),
        "turned": save(picture, folder / "turned.jpg", exif=turned),
        "palette": save(picture.convert("P"), folder / "palette.png"),
        "sixteen": save(deep, folder / "sixteen.png"),
        "transparent": save(see_through, folder / "transparent.png"),
        "png called jpg": save(picture, folder / "png.jpg", format="PNG"),
    }


@pytest.mark.parametrize("upright", [True, False])
def test_which_images_every_decoder_reads_alike(upright: bool, tmp_path: Path) -> None:
    ways, sides = {}, {}
    for kind, path in kinds(tmp_path).items():
        found = examine(Photo(str(path), path.name, 0), upright)
        assert not isinstance(found, str), found
        assert found.content == path.read_bytes()
        ways[kind], sides[kind] = found.way, (found.width, found.height)
    plain = {kind for kind, way in ways.items() if way == PLAIN}
    assert plain == {"colour", "grey"} | (set() if upright else {"turned"})
    assert set(ways.values()) == {PLAIN, UPRIGHT if upright else AS_IS}
    assert sides.pop("turned") == ((40, 48) if upright else (48, 40))
    assert set(sides.values()) == {(48, 40)}


def test_bad_images_are_refused_by_name(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 6, ("train", "val"))
    train = root / "train"
    whole = (train / "warm" / "003.jpg").read_bytes()
    (train / "warm" / "003.jpg").write_bytes(whole[: len(whole) // 2])
    (train / "cool" / "001.jpg").write_bytes(b"")
    (train / "cool" / "002.jpg").write_text("not an image")
    said = refused(root, r"3 of 24 files are no readable images: ")
    for name, why in (("warm/003", "truncated"), ("cool/001", "it is empty"), ("cool/002", "it is no JPEG")):
        assert f"train/{name}.jpg (" in said and why in said
    facts = made(root, skip_bad=True)
    assert facts["selection"]["left_out"] == 3 and facts["counts"] == {"train": 9, "test": 12}
    assert loaded(tmp_path, verify=True).train.labels.tolist() == [0] * 4 + [1] * 5


def test_a_class_that_is_left_empty_is_refused(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 2, ("train", "val"))
    for path in (root / "val" / "warm").iterdir():
        path.write_bytes(b"nothing")
    refused(root, "no readable test image is left of 'warm'", skip_bad=True)
    shutil.rmtree(root / "val" / "warm")
    (root / "val" / "warm").mkdir()
    refused(root, "warm holds no image")


def test_images_of_both_splits_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "photos", 3, ("train", "val"))
    shutil.copy(root / "train" / "cool" / "000.jpg", root / "val" / "cool" / "again.jpg")
    assert made(root)["selection"]["repeated"] == 1
    assert "1 of 7 test images also occur in training, byte for byte" in capsys.readouterr().out


def test_a_narrow_image_is_refused(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 3)
    save(drawn(1, 2, 200), root / "cool" / "stripe.png")
    refused(root, r"cool/stripe\.png \(it is 200 x 2, too narrow to be cropped\)")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"short_side": 8}, "short_side must be 16"),
        ({"mean": [0.5, 0.5, 0.5]}, "give both or neither"),
        ({"size": 0}, "number of pixels"),
        ({"resize": "squash"}, "unknown key 'data.resize'"),
    ],
)
def test_settings_that_cannot_be_meant(options: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match=match):
        streamed(tmp_path, **options)


# --- atomic, and what is wrong with a blob


def test_an_interrupted_blob_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos(tmp_path / "photos", 4)

    def interrupted(photo: Photo, *more: Any) -> Any:
        if photo.name == "warm/002.jpg":
            raise KeyboardInterrupt
        return examine(photo, *more)

    monkeypatch.setattr(blobs, "examine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(root)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_damaged_blob_is_one_sentence(tmp_path: Path) -> None:
    made(photos(tmp_path / "photos", 4))
    blob = tmp_path / "x.blob"
    content = blob.read_bytes()
    blob.write_bytes(content[:-1])
    with pytest.raises(StaleInput, match=r"x\.blob has [\d,]+ of [\d,]+ bytes: delete it and run the data stage"):
        loaded(tmp_path)
    blob.write_bytes(b"\0" + content[1:])
    with pytest.raises(StaleInput, match=r"x\.blob is not the blob that its index describes \(byte 0\)"):
        loaded(tmp_path)
    blob.unlink()
    with pytest.raises(StaleInput, match="is missing"):
        loaded(tmp_path)


def test_another_index_is_one_sentence(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 4)
    made(root)
    for path in root.rglob("*.jpg"):  # as many bytes, in another order
        path.rename(path.with_name(f"{999 - int(path.stem)}.jpg"))
    (tmp_path / "other").mkdir()
    made(root, tmp_path / "other")
    shutil.copy(tmp_path / "other" / "arrays.safetensors", tmp_path)
    with pytest.raises(StaleInput, match="is not the blob that its index describes"):
        loaded(tmp_path)


def test_changed_columns_are_noticed(tmp_path: Path) -> None:
    made(photos(tmp_path / "photos", 4))
    index = tmp_path / "arrays.safetensors"
    data = loaded(tmp_path, verify=True)
    columns = load_arrays(index)
    columns["train_labels"][0] = 1
    save_tensors(index, columns, read_metadata(index))
    with pytest.raises(StaleInput, match="does not hold the columns that it describes"):
        loaded(tmp_path, verify=True)
    prepare("folder", {"root": str(tmp_path / "photos"), "size": 16}, index)
    with pytest.raises(StaleInput, match="is no index of a blob"):
        loaded(tmp_path)
    assert len(data.train) == 6


def test_the_wrong_stage_is_one_sentence(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 2)
    with pytest.raises(DistilleryError, match="streamed and never made into arrays"):
        prepare("streamed_folder", {"root": str(root)}, tmp_path / "x.safetensors")
