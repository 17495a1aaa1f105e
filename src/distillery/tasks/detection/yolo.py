"""Which images there are and what is in them, as YOLO's files say it. Nothing is decoded here."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from ruamel.yaml.error import YAMLError

from distillery.data.listing import SUFFIXES
from distillery.errors import DistilleryError
from distillery.records.given import given_yaml
from distillery.tasks.detection.listing import Item, Listing, Object, named_twice

MARGIN = 0.01  # by which a number may be outside of an image of side 1: programs round


def yolo(root: Path, splits: dict[str, str], names: list[str]) -> Listing:
    """YOLO's layout: `images/SPLIT/x.jpg` and `labels/SPLIT/x.txt`.

    Lines of a text file are a class and a box in units of the image.

    An image without a text file has no objects. A line of more than five numbers is a polygon, whose extent counts.
    Hidden files are left out. Raises DistilleryError for numbers outside of the image, by more than 0.01, for a box
    without an area, for images in sub-folders or with one text file, and for text files without an image, but for
    classes.txt.
    """
    items = {}
    for split, name in splits.items():
        folder = root / "images" / name
        if not folder.is_dir():
            raise DistilleryError(f"there is no folder {folder}: `data.{split}` names it below `data.root`/images")
        labels = root / "labels" / name
        if not labels.is_dir():
            raise DistilleryError(f"there is no folder {labels}: put the boxes of the images of {folder} there")
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        called = Counter(p.stem for p in files)
        if twice := [stem for stem, count in called.items() if count > 1]:
            raise DistilleryError(f"two images are called {twice[0]} in {folder}: keep one for each text file")
        _see_all(folder, labels, {*called})
        items[split] = [
            Item(p, f"{name}/{p.name}", _lines(labels / f"{p.stem}.txt", len(names)), relative=True) for p in files
        ]
    return Listing(names, items)


def _see_all(folder: Path, labels: Path, stems: set[str]) -> None:
    """Raise DistilleryError for images in sub-folders, but for hidden ones, and for text files of no image."""
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if below := next((p for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES), None):
            raise DistilleryError(f"{below} is in a sub-folder, where it is not read: put all images into {folder}")
    texts = [p for p in labels.iterdir() if p.suffix.lower() == ".txt" and not p.name.startswith(".")]
    lost = sorted(p for p in texts if (p.stem not in stems and p.name != "classes.txt") or p.suffix != ".txt")
    if lost:
        raise DistilleryError(
            f"{lost[0]} has the boxes of no image in {folder} ({len(lost)} such): give image and text file the same "
            "name, with `.txt` in small letters, or remove the file"
        )


def yolo_names(path: Path) -> list[str]:
    """The classes' names in a YOLO data file: a list, or a mapping of numbers from 0 to names."""
    try:
        found = given_yaml(path)
    except FileNotFoundError:
        raise DistilleryError(f"there is no file {path}: `data.names` names the file of the classes' names") from None
    except (OSError, ValueError, RecursionError, YAMLError) as error:  # ValueError: no UTF-8, a 13th month
        raise DistilleryError(
            f"{path} cannot be read as YAML ({type(error).__name__}): `data.names` names the file"
        ) from None
    if isinstance(found, dict) and "kpt_shape" in found:
        raise DistilleryError(f"{path} has `kpt_shape`: its labels hold key points too: write boxes only, and drop it")
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, dict) and {*names} == {*range(len(names))}:
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DistilleryError(f"{path} has no `names:` of the classes, a list or a mapping from 0 on")
    for name in names:
        if not isinstance(name, str) and type(name) is not int:
            raise DistilleryError(f"{path}: a class is called {name!r} as YAML reads it: put its name in quotes")
        if not str(name).strip():  # without a name a number is that of no class
            raise DistilleryError(f"{path}: a class has an empty name: name it")
    found = [str(name) for name in names]
    if twice := named_twice(dict(enumerate(found))):
        first, second, name = twice
        raise DistilleryError(f"{path}: the classes {first} and {second} are both called {name!r}: name them apart")
    return found


def _lines(path: Path, classes: int) -> list[Object]:
    if not os.path.lexists(path):  # a link that leads nowhere is there, and no image without objects
        return []
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DistilleryError(f"{path} cannot be read ({error.strerror}): put the boxes of its image there") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found += [_object(line, classes)] if line.strip() else []
        except ValueError:
            raise DistilleryError(
                f"{path}, line {number}: expected a class below {classes} and centre, width and height between 0 and 1"
            ) from None
    return found


def _object(line: str, classes: int) -> Object:
    label, *values = line.split()
    at = [float(v) for v in values]
    if len(at) < 4 or len(at) % 2 or not 0 <= int(label) < classes:
        raise ValueError
    if len(at) == 4:
        x, y, w, h = at
        left, top = x - w / 2, y - h / 2
    else:
        left, top = min(at[0::2]), min(at[1::2])
        w, h = max(at[0::2]) - left, max(at[1::2]) - top
    if not all(-MARGIN <= v <= 1 + MARGIN for v in at) or w <= 0 or h <= 0:  # not a number is not between, either
        raise ValueError
    return Object((left, top, w, h), int(label))
