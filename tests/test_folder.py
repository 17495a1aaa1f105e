"""Own images in folders: what is read, how it is split, and one sentence for whatever is wrong with it."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_images import drawn, photos, save
from PIL import Image

from distillery.data import open_source, prepare
from distillery.data import pixels as measured
from distillery.data.arrays import Shape
from distillery.data.dataset import Dataset
from distillery.data.listing import SUFFIXES, list_folder
from distillery.data.pictures import decode
from distillery.records.io import DistilleryError, load_tensors, sha256_file

FILE = "arrays.safetensors"


def made(root: Path, **options: Any) -> dict[str, Any]:
    """Prepare a folder; return the facts."""
    return prepare("folder", {"root": str(root), "size": 16} | options, root.parent / FILE)


def refused(root: Path, match: str, **options: Any) -> str:
    """Prepare a folder, which fails in one sentence and leaves nothing."""
    with pytest.raises(DistilleryError, match=match) as caught:
        made(root, **options)
    assert "\n" not in str(caught.value) and not (root.parent / FILE).exists()
    return str(caught.value)


# --- what is read


def test_folders_of_their_own_for_training_and_test(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 4, ("train", "val"))
    facts = made(root)
    assert facts["class_names"] == ["cool", "warm"] and facts["counts"] == {"train": 8, "test": 8}
    assert facts["shape"] == [16, 16, 3] and facts["scale"] == 255.0
    assert facts["selection"] == {
        **{"size": [16, 16], "resize": "crop", "channels": 3, "mean": None, "std": None, "skip_bad": False},
        **{"tested": "the folder val", "left_out": 0, "repeated": 0},
    }
    data = Dataset.load(tmp_path / FILE, verify=True)
    assert data.train_labels.tolist() == data.test_labels.tolist() == [0] * 4 + [1] * 4
    for i, name in enumerate(["cool/000", "cool/001", "cool/002", "cool/003", "warm/000"]):
        expected = decode((root / "train" / f"{name}.jpg").read_bytes(), (16, 16))
        assert np.array_equal(data.train_images[i].permute(1, 2, 0), expected)
    assert open_source("folder", {"root": str(root), "size": 16}).shape() == Shape(3, 16, 16, 2, 8, 8)


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_any_usual_name_of_the_test_folder_will_do(name: str, tmp_path: Path) -> None:
    assert made(photos(tmp_path / "p", 2, ("train", name)))["selection"]["tested"] == f"the folder {name}"


def test_a_test_folder_of_any_name_can_be_named(tmp_path: Path) -> None:
    root = photos(tmp_path / "p", 2, ("train", "val", "test", "held_out"))
    refused(root, r"p has the folders test and val: say by `data\.test` which is tested")
    assert made(root, test="held_out")["selection"]["tested"] == "the folder held_out"
    refused_again = pytest.raises(DistilleryError, match=r"data\.test: there is no folder 'vall' .* did you mean 'val'")
    with refused_again:
        made(root, test="vall")


def test_classes_alone_are_split_by_rule(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 10)
    facts = made(root)
    assert facts["counts"] == {"train": 16, "test": 4}
    assert facts["selection"]["tested"] == "0.2 of each class, by name"
    data = Dataset.load(tmp_path / FILE)
    assert data.test_labels.tolist() == [0, 0, 1, 1]
    listing = list_folder(root)
    assert [photo.name for photo in listing.test] == ["cool/001.jpg", "cool/004.jpg", "warm/004.jpg", "warm/007.jpg"], (
        "frozen: a study must test the same images tomorrow"
    )
    assert made(root, test_fraction=0.5)["counts"] == {"train": 10, "test": 10}
    assert made(root, test_fraction=0.001)["counts"] == {"train": 18, "test": 2}
    assert made(root, test_fraction=0.999)["counts"] == {"train": 2, "test": 18}
    values = [open_source("folder", {"root": "x"} | more).selection() for more in ({}, {"test_fraction": 0.2})]
    assert values[0] == values[1] and "root" not in values[0]


def test_the_rule_moves_at_most_one_image_when_another_comes(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 20)
    before = {photo.name for photo in list_folder(root).test}
    for i in range(5):
        save(drawn(99 + i), root / "cool" / f"more{i}.png")
        after = {photo.name for photo in list_folder(root).test}
        assert len(before - after) <= 1 and len(after - before) <= 1
        before = after


def test_order_of_files_and_place_of_the_folder_do_not_matter(tmp_path: Path) -> None:
    first = photos(tmp_path / "a" / "photos", 6)
    second = tmp_path / "b" / "other name"
    for path in sorted(first.rglob("*.jpg"), reverse=True):
        (second / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, second / path.parent.name / path.name)
    assert made(first) == made(second)
    assert sha256_file(first.parent / FILE) == sha256_file(second.parent / FILE)


def test_as_many_threads_as_there_are_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos(tmp_path / "photos", 10)
    facts = made(root)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert made(root) == facts


def test_what_is_found_in_class_folders(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "photos", 2)
    for i, suffix in enumerate(SUFFIXES):
        kind = {"jpe": "jpeg", "jpg": "jpeg", "tif": "tiff"}.get(suffix[1:], suffix[1:])
        save(drawn(50 + i), root / "cool" / "deep" / "er" / f"{i}{suffix.upper()}", format=kind)
    shutil.move(root / "cool" / "000.jpg", root / "cool" / "a name with ünïcode & $signs.JPG")
    save(drawn(70), root / "cool" / ".hidden.jpg")
    save(drawn(71), root / ".trash" / "gone.jpg")
    save(drawn(72), root / "cool" / ".thumbnails" / "small.jpg")
    (root / "cool" / "notes.txt").write_text("no image")
    (root / "cool" / "PHOTO.HEIC").write_bytes(b"x")
    (root / "cool" / "Makefile").write_text("x")
    save(drawn(73), root / "stray.jpg")
    os.mkfifo(root / "cool" / "pipe.jpg")
    elsewhere = photos(tmp_path / "elsewhere", 3)
    (root / "linked").symlink_to(elsewhere / "warm")
    (root / "cool" / "link.jpg").symlink_to(elsewhere / "cool" / "000.jpg")
    facts = made(root)
    assert facts["class_names"] == ["cool", "linked", "warm"]
    assert sum(facts["counts"].values()) == 2 + len(SUFFIXES) + 1 + 3 + 2
    assert (
        "left out, because not images by their suffix: .heic (1), .txt (1), images in no class folder (1) and 1 more"
        in (capfd.readouterr().out)
    )


def test_grey_images_and_both_ways_to_resize(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 3)
    assert made(root, channels=1, size=[12, 20])["shape"] == [12, 20, 1]
    cropped = load_tensors(tmp_path / FILE)["train_images"]
    made(root, channels=1, size=[12, 20], resize="squash")
    assert not torch.equal(load_tensors(tmp_path / FILE)["train_images"], cropped)


def test_mean_and_deviation_are_those_of_the_training_pixels_or_given(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 8)
    facts = made(root)
    pixels = load_tensors(tmp_path / FILE)["train_images"].double() / 255
    assert facts["mean"] == [round(v, 4) for v in pixels.mean((0, 1, 2)).tolist()]
    assert facts["std"] == [round(v, 4) for v in pixels.std((0, 1, 2), correction=0).tolist()]
    given = made(root, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert (given["mean"], given["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert given["selection"]["mean"] == given["mean"] and given["content"] == facts["content"]


def test_more_than_256_classes_are_labelled_in_two_bytes(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for i in range(300):
        for j in range(2):
            save(drawn(2 * i + j, 4, 4), root / f"c{i:03d}" / f"{j}.png")
    facts = made(root, size=4)
    assert facts["num_classes"] == 300 and facts["counts"] == {"train": 300, "test": 300}
    assert load_tensors(tmp_path / FILE)["train_labels"].dtype == torch.uint16
    data = Dataset.load(tmp_path / FILE, verify=True)
    assert data.train_labels.dtype == torch.int64 and data.train_labels.tolist() == list(range(300))
    with pytest.raises(DistilleryError, match="there are 70,000 classes, but labels of at most 65,536"):
        measured.as_labels([0], 70_000)


# --- what is wrong


def test_bad_files_are_refused_together_and_can_be_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "photos", 5, ("train", "test"))
    cool = root / "train" / "cool"
    (cool / "a_empty.jpg").touch()
    (cool / "b_text.jpg").write_text("not a picture")
    (cool / "c_cut.jpg").write_bytes((cool / "000.jpg").read_bytes()[:400])
    (cool / "d_gone.jpg").symlink_to("nowhere.jpg")
    (root / "test" / "warm" / "e_text.png").write_text("not a picture")
    shutil.copyfile(save(drawn(0), tmp_path / "x.png"), cool / "f_png_called.jpg")
    said = refused(root, "data.skip_bad")
    assert re.fullmatch(
        r"5 of 26 files are no readable images: train/cool/a_empty\.jpg \(it is empty\), train/cool/b_text\.jpg "
        r"\(it is no JPEG, PNG, WebP, BMP, GIF or TIFF\), train/cool/c_cut\.jpg \(.*[Tt]runcated.*\) and 2 more; mend "
        r"or remove them, or leave them out by `data\.skip_bad: true`",
        said,
    )
    capfd.readouterr()
    facts = made(root, skip_bad=True)
    assert facts["counts"] == {"train": 11, "test": 10} and facts["selection"]["left_out"] == 5
    assert "left out: 5 of 26 files are no readable images" in capfd.readouterr().out
    for path in ("a_empty.jpg", "b_text.jpg", "c_cut.jpg", "d_gone.jpg"):
        (cool / path).unlink()
    (tmp_path / FILE).unlink()
    assert refused(root, "^1 of 22 files is no readable image: test/warm/e_text.png")


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 2, ("train", "test"))
    for path in (root / "test" / "warm").iterdir():
        path.write_bytes(b"")
    refused(root, r"no readable test image is left of 'warm': mend or remove the class", skip_bad=True)


def test_unreadable_files_and_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos(tmp_path / "photos", 2)
    read, scan = Path.read_bytes, os.scandir

    def no_bytes(self: Path) -> bytes:
        if self.name == "000.jpg":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    with monkeypatch.context() as patched:  # the superuser, who runs tests in containers, may read everything
        patched.setattr(Path, "read_bytes", no_bytes)
        refused(root, r"^2 of 4 files are no readable images: cool/000.jpg \(Permission denied\)")

    def no_list(folder: Any) -> Any:
        if str(folder).endswith("warm"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", no_list)
        refused(root, r"warm cannot be listed \(Permission denied\): mend or remove it")


@pytest.mark.parametrize(
    "names", [("Train", "Test"), ("training", "testing"), ("train_set", "val_set"), ("Training", "Validation", "more")]
)
def test_splits_in_other_words_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 2, names)
    refused(root, r"photos has the folders \w+ and \w+, which would be two classes: call them train and test, with a")


def test_images_of_splits_without_class_folders_are_no_classes(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 2, ("train", "test1"))
    for split in ("train", "test1"):
        for file in (root / split).rglob("*.jpg"):
            file.rename(root / split / f"{file.parent.name}{file.name}")
        for folder in [p for p in (root / split).iterdir() if p.is_dir()]:
            folder.rmdir()
    refused(root, r"photos has the folders train and test1, which would be two classes")
    (root / "train").rename(root / "trains")  # classes of that name are classes
    assert made(root)["class_names"] == ["test1", "trains"]


def test_images_in_training_and_test_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "photos", 5, ("train", "test"))
    shutil.copyfile(root / "train" / "cool" / "001.jpg", root / "test" / "cool" / "copy.jpg")
    facts = made(root)
    assert facts["selection"]["repeated"] == 1
    assert "1 of 11 test images also occur in training, pixel by pixel" in capfd.readouterr().out


def test_folders_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    refused(root, r"^the folder .*photos does not exist: correct `data\.root`$")
    root.write_text("a file")
    refused(root, r"^the folder .*photos cannot be listed \(Not a directory\)")
    root.unlink()
    root.mkdir()
    refused(root, r"photos holds no class folders: make a folder for each class")
    save(drawn(0), root / "alone.jpg")
    refused(root, r"photos holds no class folders")
    photos(root, 2)
    shutil.rmtree(root / "warm")
    refused(root, r"photos holds only one class folder, cool: make a folder")
    photos(root, 2)
    (root / "empty").mkdir()
    (root / "empty" / "readme.md").write_text("soon")
    refused(root, r"photos/empty holds no image: mend or remove it$")
    shutil.rmtree(root / "empty")
    save(drawn(1), root / "single" / "0.png")
    refused(root, r"^class 'single' has one image, .*0\.png: add another one, to be tested$")
    shutil.rmtree(root / "single")
    (root / "cool" / "loop").symlink_to(root)
    refused(root, r"is a link to a folder above it: mend or remove it$")
    (root / "cool" / "loop").unlink()
    shutil.copyfile(root / "cool" / "000.jpg", os.fsencode(root / "cool") + b"/\xff.jpg")
    refused(root, r"has a name that is not UTF-8")


def test_contradictory_splits(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 2, ("train",))
    refused(
        root, r"photos has a folder train, but none of test, val, valid, validation beside it: .*photos/train to have"
    )
    assert made(root / "train")["counts"] == {"train": 2, "test": 2}
    (root / FILE).unlink(missing_ok=True)
    photos(root, 2, ("train", "val"))
    (tmp_path / FILE).unlink(missing_ok=True)
    refused(
        root,
        r"^data\.test_fraction has no effect: .*photos has a folder val of its own; leave it out$",
        test_fraction=0.2,
    )
    save(drawn(0), root / "val" / "new" / "0.png")
    refused(root, r"photos has test images only of 'new': every class needs both$")
    shutil.move(root / "val" / "new", root / "train" / "new")
    refused(root, r"photos has training images only of 'new': every class needs both$")
    refused(root / "train", r"^data\.test is 'val', but there is no folder .*train/train beside it$", test="val")


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_classes_are_in_the_order_of_their_names_however_accents_are_stored(
    forms: tuple[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    for split, form in zip(("train", "test"), forms, strict=True):
        for name in ("\u00e9t\u00e9", "fin"):
            save(drawn(0), root / split / unicodedata.normalize(form, name) / "0.png")
    found = list_folder(root)
    assert found.class_names == ["fin", "\u00e9t\u00e9"]
    for photos_ in (found.train, found.test):
        assert [found.class_names[photo.label] for photo in photos_] == [p.name.split("/")[1] for p in photos_]
    save(
        drawn(1),
        root / "train" / unicodedata.normalize("NFC" if forms[0] == "NFD" else "NFD", "\u00e9t\u00e9") / "1.png",
    )
    refused(root, r"train has two folders '\u00e9t\u00e9' whose accents are stored differently: make them one$")


@pytest.mark.parametrize("source", ["folder", "npz", "streamed_folder", "imagenet", "frames", "coco"])
def test_constants_in_levels_of_255_are_refused(source: str) -> None:
    """Images between 0 and 1 less 125 are all alike, and nothing would say so."""
    where = {"path": "x.npz"} if source == "npz" else {"root": "x"}
    with pytest.raises(
        DistilleryError, match=r"data\.mean\.0: less than or equal to 1, not 125\.3(.|\n)*data\.std\.0: "
    ):
        open_source(source, where | {"mean": [125.3, 123.0, 113.9], "std": [63.0, 62.1, 66.7]})
    assert open_source(source, where | {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]})


def test_images_of_one_colour_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name in "ab":
        for i in range(3):
            save(Image.new("RGB", (8, 8), "red"), root / name / f"{i}.png")
    refused(root, r"^channel 0 has one value in all training images: use other images$")
    counts = np.zeros((1, 256), dtype=np.int64)
    counts[0, :2] = (100_000, 1)  # one pixel is another: a deviation of 0.0000 divides as badly
    with pytest.raises(DistilleryError, match="channel 0 has one value"):
        measured.of_counts(counts)


def test_too_large_for_the_memory_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = photos(tmp_path / "photos", 3)
    monkeypatch.setattr(measured, "_memory", lambda: 9000)
    made(root)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith(
        "the images will take 0.0 GB as arrays, more than half of this machine's 0.0 GB of memory"
    )
    monkeypatch.setattr(measured, "_memory", lambda: 9216)
    made(root)
    assert "memory" not in capfd.readouterr().out


@pytest.mark.slow
def test_imagenette_at_32_pixels(shared_dir: Path, tmp_path: Path) -> None:
    pack = shared_dir / "data" / "imagenette2_224"
    if not pack.is_dir():
        pytest.skip("the Imagenette pack is not in ../shared/data")
    root = tmp_path / "imagenette"
    for split in ("train", "val"):
        with zipfile.ZipFile(pack / f"{split}.zip") as content:
            content.extractall(root)
    facts = made(root, size=32)
    assert facts["counts"] == {"train": 1500, "test": 500} and facts["num_classes"] == 10
    assert facts["class_names"][0] == "n01440764" and facts["selection"]["repeated"] == 0
    assert (facts["mean"], facts["std"]) == ([0.46, 0.4545, 0.4243], [0.2592, 0.2569, 0.2806])
    assert Dataset.load(tmp_path / FILE, verify=True).train_labels.bincount().tolist() == [150] * 10
