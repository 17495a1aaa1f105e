"""Tiny-ImageNet as distributed and as rearranged: the same arrays; names from words.txt; one sentence otherwise."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from own_images import drawn, save

from distillery.data import open_source, prepare
from distillery.data.arrays import Shape
from distillery.data.dataset import Dataset
from distillery.records.io import DistilleryError, sha256_file

pytestmark = pytest.mark.slow

WNIDS = ("n01443537", "n01629819", "n02814533")


def distributed(root: Path) -> Path:
    lines = []
    for c, wnid in enumerate(WNIDS):
        for i in range(4):
            save(drawn(10 * c + i, 64, 64), root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", format="JPEG")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("x\t0\t0\t63\t63\n")
        for i in (0, 1):
            name = f"val_{3 * i + c}.JPEG"
            save(drawn(100 + 10 * c + i, 64, 64), root / "val" / "images" / name, format="JPEG")
            lines.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    save(drawn(999, 64, 64), root / "test" / "images" / "test_0.JPEG", format="JPEG")
    (root / "words.txt").write_text(
        "\ufeffn01443537\tgoldfish, Carassius auratus\nn01629819\tEuropean fire salamander\n"
        "n02814533\tgoldfish\nn0\tother\n"
    )
    return root


def rearranged(source: Path, root: Path) -> Path:
    for line in (source / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (root / "val" / wnid).mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "val" / "images" / name, root / "val" / wnid / name)
    for file in (source / "train").rglob("*.JPEG"):
        (root / "train" / file.parent.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / "train" / file.parent.parent.name / file.name)
    shutil.copy(source / "words.txt", root / "words.txt")
    return root


def made(root: Path, out: Path) -> dict[str, Any]:
    return prepare("tiny_imagenet", {"root": str(root)}, out)


def test_both_forms_give_the_same_arrays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = distributed(tmp_path / "tiny-imagenet-200")
    facts = made(root, tmp_path / "a")
    assert facts == made(rearranged(root, tmp_path / "other"), tmp_path / "b")
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")
    assert "left out" not in capfd.readouterr().out
    assert facts["class_names"] == ["goldfish (n01443537)", "European fire salamander", "goldfish (n02814533)"]
    assert facts["counts"] == {"train": 12, "test": 6} and facts["shape"] == [64, 64, 3]
    assert Dataset.load(tmp_path / "a").test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert open_source("tiny_imagenet", {"root": str(root)}).shape() == Shape(3, 64, 64, 3, 12, 6)
    (root / "words.txt").unlink()
    assert made(root, tmp_path / "a")["class_names"] == [*WNIDS]


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    root = distributed(tmp_path / "tiny")

    def refused(match: str) -> None:
        with pytest.raises(DistilleryError, match=match) as caught:
            made(root, tmp_path / "out")
        assert "\n" not in str(caught.value)

    annotations = root / "val" / "val_annotations.txt"
    before = annotations.read_text()
    annotations.write_text(before + "val_9.JPEG\tn01443537\t0\n")
    refused(r"val_annotations\.txt, line 7: .*val_9\.JPEG is missing: unpack the archive again$")
    annotations.write_text("../../words.txt\tn01443537\n\nval_0.JPEG\n")
    refused(r"line 1 \(.*\) names no class that train has, line 2 .*, line 3 .*: unpack")
    annotations.write_bytes(b"\xff\xfe")
    refused(r"^cannot read .*val_annotations\.txt \(.*\): unpack the archive again$")
    lines = before.splitlines(True)
    annotations.write_text("".join(lines[:3]))
    refused(r"images/val_\d\.JPEG is in no line, .*images/val_\d\.JPEG is in no line: unpack the archive again$")
    annotations.write_text(before + lines[0].replace(WNIDS[0], WNIDS[2]))
    refused(r"val_annotations\.txt, val_0\.JPEG is in 2 lines: unpack the archive again$")
    annotations.write_text("".join(line for line in lines if WNIDS[1] not in line))
    for line in lines:
        if WNIDS[1] in line:
            (root / "val" / "images" / line.split()[0]).unlink()
    refused(r"has training images only of 'n01629819': every class needs both$")
    shutil.rmtree(root / "val")
    refused(r"tiny has no folder val: name the folder tiny-imagenet-200$")


def test_twenty_classes_of_the_real_one(shared_dir: Path, tmp_path: Path) -> None:
    pack = shared_dir / "data" / "tiny_imagenet_20"
    if not pack.is_dir():
        pytest.skip("the Tiny-ImageNet pack is not in ../shared/data")
    for split in ("train", "val"):
        with zipfile.ZipFile(pack / f"{split}.zip") as content:
            content.extractall(tmp_path / "tiny")
    facts = made(tmp_path / "tiny", tmp_path / "out")
    assert facts["counts"] == {"train": 5000, "test": 1000} and facts["num_classes"] == 20
    assert (facts["mean"], facts["std"]) == ([0.4922, 0.4459, 0.3961], [0.2803, 0.2746, 0.2839])
    assert facts["selection"]["repeated"] == 0
