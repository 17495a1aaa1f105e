"""Tiny-ImageNet-200 (Stanford CS231n): photographs of 64x64 pixels, 200 classes with 500 training and 50 test images.

The folder is read as distributed (`train/<wnid>/images/`, `val/images/` with `val_annotations.txt`), or rearranged as
most tools want it (`val/<wnid>/`); a part of the classes will do. The 50 validation images of each class are tested,
since the labels of the official test images were never published. Classes are numbered in the order of their WordNet
ids and called by the first word of `words.txt`, where there is one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from distillery.data.listing import SUFFIXES, Listing, Photo, in_splits, list_classes, subfolders
from distillery.data.photos import Photos
from distillery.data.rooted import Rooted
from distillery.errors import DistilleryError
from distillery.errors.words import some
from distillery.records.named import walk

ANNOTATIONS = "val_annotations.txt"


class TinyImageNet(Rooted, Photos):
    """Read Tiny-ImageNet from its folder; nothing is downloaded."""

    class Config(Photos.Config):
        root: str
        """The folder `tiny-imagenet-200`."""

    config: Config

    def selection(self) -> dict[str, Any]:
        return self.chosen()

    def listing(self) -> Listing:
        """List the files of `train` and `val`."""
        folders = subfolders(self.root)
        if absent := [name for name in ("train", "val") if name not in folders]:
            raise DistilleryError(f"{self.root} has no folder {absent[0]}: name the folder tiny-imagenet-200")
        train = list_classes(self.root / "train", self.root)
        annotations = self.root / "val" / ANNOTATIONS
        test = _annotated(annotations, train) if annotations.exists() else list_classes(self.root / "val", self.root)
        joined = in_splits(train, test, self.root, "val")
        left_out = Counter({k: v for k, v in joined.left_out.items() if k != ".txt"})  # boxes
        return dataclasses.replace(joined, class_names=_names(self.root, joined.class_names), left_out=left_out)


def _annotated(annotations: Path, train: Listing) -> Listing:
    """The validation images as distributed: all in one folder, their classes in a table (file, WordNet id, a box)."""
    folder, labels = annotations.parent / "images", {name: i for i, name in enumerate(train.class_names)}
    photos, problems, listed = list[Photo](), list[str](), Counter[str]()
    for number, line in enumerate(_lines(annotations), 1):
        name, wnid = [*line.split("\t"), ""][:2]
        listed[name] += 1
        if wnid not in labels or "/" in name:
            problems.append(f"line {number} ({line[:40]!r}) names no class that train has")
        elif not (folder / name).is_file():
            problems.append(f"line {number}: {folder / name} is missing")
        else:
            photos.append(Photo(str(folder / name), f"val/images/{name}", labels[wnid]))
    problems += [f"{name} is in {count} lines" for name, count in listed.items() if count > 1]
    there = {file.name for file in walk(folder, problems) if file.name.lower().endswith(SUFFIXES)}
    problems += [f"{folder / name} is in no line" for name in sorted(there - {*listed})]
    if problems:
        raise DistilleryError(f"{annotations}, {some(problems)}: unpack the archive again")
    photos.sort(key=lambda photo: (photo.label, photo.name))
    labelled = {photo.label for photo in photos}
    return Listing([name for i, name in enumerate(train.class_names) if i in labelled], photos, [], "")


def _names(root: Path, wnids: list[str]) -> list[str]:
    """The first word for each class, with its id where several have the same one; the ids where there are no words."""
    words = root / "words.txt"
    table = dict(line.split("\t", 1) for line in _lines(words) if "\t" in line) if words.exists() else {}
    names = [table.get(wnid, wnid).split(",")[0].strip() or wnid for wnid in wnids]
    return [f"{name} ({wnid})" if names.count(name) > 1 else name for name, wnid in zip(names, wnids, strict=True)]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DistilleryError(f"cannot read {file} ({error}): unpack the archive again") from None
