"""Images in folders: which files there are, which class each belongs to, which are tested. Nothing is decoded here."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distillery.data.pixels import tested_by_rule
from distillery.errors import DistilleryError
from distillery.errors.words import nearest, some
from distillery.records.named import walk

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # in small or capital letters
TRAIN, TEST = "train", ("test", "val", "valid", "validation")
_SPLIT = re.compile(r"(train|test|val|valid|validat|eval|evaluat|dev)[^a-z]*(ing|ion|set)?[^a-z]*")
FRACTION = 0.2  # of each class is tested where a folder has no split of its own


class Photo(NamedTuple):
    """An image file, or a member of an archive that is one.

    Attributes:
        path: where it is.
        name: relative to the root of the data, with `/` and in Unicode's composed form on every system.
        label: the number of its class.
        offset, length: the bytes of `path` that are the image; without a length, all of them.
    """

    path: str
    name: str
    label: int
    offset: int = 0
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The image files of a data set, in canonical order: by label, then by name.

    Attributes:
        tested: which images are tested, in words.
        left_out: how many other files lie in the class folders, by suffix.
    """

    class_names: list[str]
    train: list[Photo]
    test: list[Photo]
    tested: str
    left_out: Counter[str] = field(default_factory=Counter)


def list_folder(
    root: Path,
    test: str | None = None,
    fraction: float | None = None,
    members: Callable[[Path, Path], Listing] | None = None,
) -> Listing:
    """List a folder of class folders, or one with `train` and a test folder in it that both have class folders.

    Args:
        test: name of the test folder, where there are several that might be it.
        fraction: of each class, to be tested where there is no test folder.
        members: lists a folder of class folders; `list_classes` unless its members are other things than images.

    Raises:
        DistilleryError: naming what is missing, empty or contradictory, and what to do.
    """
    folders, members = subfolders(root), members or list_classes
    beside = [name for name in folders if name in TEST]
    if test is None and (TRAIN not in folders or not subfolders(root / TRAIN)):
        _see_splits(root, folders)
        return split_by_rule(members(root, root), FRACTION if fraction is None else fraction)
    if TRAIN not in folders:
        raise DistilleryError(f"data.test is {test!r}, but there is no folder {root / TRAIN} beside it")
    if not beside and test is None:
        raise DistilleryError(
            f"{root} has a folder {TRAIN}, but none of {', '.join(TEST)} beside it: name the test folder by `data.test`"
            f", or set `data.root` to {root / TRAIN} to have it split"
        )
    if test is None and len(beside) > 1:
        raise DistilleryError(f"{root} has the folders {' and '.join(beside)}: say by `data.test` which is tested")
    test = test or beside[0]
    if test not in folders or test == TRAIN:
        raise DistilleryError(f"data.test: there is no folder {test!r} in {root}: {nearest(test, [*folders])}")
    if fraction is not None:
        raise DistilleryError(f"data.test_fraction has no effect: {root} has a folder {test} of its own; leave it out")
    return in_splits(members(root / TRAIN, root), members(root / test, root), root, test)


def _see_splits(root: Path, folders: list[str]) -> None:
    """Raise DistilleryError for folders that are called like splits, in other words, and would count as classes."""
    meant = [name for name in folders if _SPLIT.fullmatch(name.casefold())]
    trained = [name for name in meant if name.casefold().startswith(TRAIN)]
    if trained and len(trained) < len(meant):
        tested = next(name for name in meant if name not in trained)
        raise DistilleryError(
            f"{root} has the folders {trained[0]} and {tested}, which would be two classes: call them {TRAIN} and "
            f"{TEST[0]}, with a folder for each class in both"
        )


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones. Raises DistilleryError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be listed ({error.strerror})"
        raise DistilleryError(f"the folder {folder} {why}: correct `data.root`") from None
    return found


def list_classes(folder: Path, root: Path) -> Listing:
    """List a folder of class folders, whose sub-folders belong to them; all images count as training images.

    Raises DistilleryError if there are fewer than two, if two have one name but for how its accents are stored, if one
    has no image, or if something cannot be listed.
    """
    # In the order of the composed names, and not of their bytes, which differ from system to system.
    found = sorted((unicodedata.normalize("NFC", name), name) for name in subfolders(folder))
    names, classes = [name for name, _ in found], [name for _, name in found]
    problems, left_out, photos = list[str](), _loose(folder), list[Photo]()
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DistilleryError(f"{folder} has two folders {twice!r} whose accents are stored differently: make them one")
    prefix = "".join(f"{part}/" for part in folder.relative_to(root).parts)
    for label, name in enumerate(classes):
        mine = []
        for file in walk(folder / name, problems):
            suffix = _suffix(file.name)
            if suffix in SUFFIXES:
                mine.append(Photo(file.path, unicodedata.normalize("NFC", f"{prefix}{name}/{file.name}"), label))
            else:
                left_out[suffix or "without suffix"] += 1
        if not mine and not problems:
            problems.append(f"{folder / name} holds no image")
        photos += sorted(mine, key=lambda photo: (photo.name, photo.path))
    problems += [f"{p.path!r} has a name that is not UTF-8" for p in photos if not is_text(p.name)]
    if problems:
        raise DistilleryError(f"{some(problems)}: mend or remove {'it' if len(problems) == 1 else 'them'}")
    if len(classes) < 2:
        said = f"only one class folder, {classes[0]}" if classes else "no class folders"
        raise DistilleryError(f"{folder} holds {said}: make a folder for each class, with its images in it")
    return Listing(names, photos, [], "none", left_out)


def _loose(folder: Path) -> Counter[str]:
    """Count the images that lie beside the class folders."""
    with os.scandir(folder) as entries:
        loose = sum(_suffix(entry.name) in SUFFIXES and entry.is_file() for entry in entries)
    return Counter({"images in no class folder": loose} if loose else {})


def split_by_rule(listing: Listing, fraction: float) -> Listing:
    """Choose the test images of each class by the hashes of their names.

    By names and not by content, because then the split is known without reading a byte, and an image that is
    compressed anew stays where it is.
    """
    train: list[Photo] = []
    test: list[Photo] = []
    of_class: list[list[Photo]] = [[] for _ in listing.class_names]
    for photo in listing.train:
        of_class[photo.label].append(photo)
    for name, photos in zip(listing.class_names, of_class, strict=True):
        if len(photos) == 1:
            raise DistilleryError(f"class {name!r} has one image, {photos[0].path}: add another one, to be tested")
        marked = tested_by_rule([hashlib.sha256(photo.name.encode()).digest() for photo in photos], fraction)
        for photo, tested in zip(photos, np.asarray(marked).tolist(), strict=True):
            (test if tested else train).append(photo)
    return Listing(listing.class_names, train, test, f"{fraction:g} of each class, by name", listing.left_out)


def in_splits(train: Listing, test: Listing, root: Path, name: str) -> Listing:
    """Join the listings of training and test folders. Raises DistilleryError for a class that only one of them has."""
    for these, others, where in ((train, test, "training"), (test, train, "test")):
        if lone := sorted({*these.class_names} - {*others.class_names}):
            raise DistilleryError(
                f"{root} has {where} images only of {some([repr(name) for name in lone])}: every class needs both"
            )
    return Listing(train.class_names, train.train, test.train, f"the folder {name}", train.left_out + test.left_out)


def suffixes_of(left_out: Counter[str]) -> str:
    """What was left out, in words: ".txt (2), .heic (1)"."""
    return some([f"{suffix} ({count:,})" for suffix, count in _ordered(left_out.items())])


def _ordered(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(counts, key=lambda pair: (-pair[1], pair[0]))


def _suffix(name: str) -> str:
    """The part from the last dot on, in small letters; "" without one."""
    return "".join(name.rpartition(".")[1:]).lower() if "." in name else ""


def is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
