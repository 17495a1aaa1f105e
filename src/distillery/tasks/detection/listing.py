"""Which images there are and what is in them, as COCO says it (others: yolo.py, voc.py). Nothing is decoded here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distillery.data.listing import is_text
from distillery.errors import DistilleryError
from distillery.records.given import given_json

SPLITS = ("train", "test")
LARGEST = 10_000  # number of a class; each takes a place in a detector's heads


class Object(NamedTuple):
    """One annotation: left, top, width and height in pixels; its class; whether it is a crowd; its area or None."""

    box: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None


class Item(NamedTuple):
    """An image file, its name relative to the root, and what is in it.

    `relative`: boxes are in units of the image, for which its size must be known first. `size`: width and height in
    pixels, as its annotations say; None where they do not.
    """

    path: Path
    name: str
    objects: list[Object]
    relative: bool = False
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of both splits, each sorted by name, and the name of every class; "" where a number has none.

    Raises DistilleryError for an image that is named twice, in one split or in both, or whose name is no text.
    """

    class_names: list[str]
    items: dict[str, list[Item]]

    def __post_init__(self) -> None:
        seen: dict[Path, str] = {}
        for split, items in self.items.items():
            for item in items:
                if not is_text(item.name):
                    raise DistilleryError(f"the image {item.name!r} of {split} has a name that is not UTF-8: rename it")
                if item.path in seen:
                    where = f"twice in {split}" if seen[item.path] == split else "in training and in test"
                    raise DistilleryError(f"the image {item.path} is named {where}: name every image once")
                seen[item.path] = split


def coco(root: Path, splits: dict[str, str], annotations: str, renumber: bool) -> Listing:
    """COCO's layout: a folder of images for every split, and a JSON file of annotations.

    Args:
        splits: name of the folder of "train" and of "test".
        annotations: path of the JSON file below `root`, with `{}` for the folder's name.
        renumber: number the classes from 0; else a class is its `category_id`.
    """
    names: dict[int, str] = {}
    raw = {}
    for split, folder in splits.items():
        path = root / annotated(annotations, folder)
        raw[split] = _document(path)
        for category, name in _categories(raw[split], path).items():
            if names.setdefault(category, name) != name:
                raise DistilleryError(
                    f"{path}: category {category} is {name!r} here, but {names[category]!r} in the other split: number "
                    "the categories alike in both"
                )
    if not names:
        raise DistilleryError(f"{root}: the annotations name no categories")
    if min(names) < 0:
        raise DistilleryError(f"{root}: the category {min(names)} is negative: number categories from 0 or 1")
    if max(names) > LARGEST and not renumber:
        raise DistilleryError(f"{root}: category {max(names)} would make as many classes: set `data.renumber: true`")
    if twice := named_twice(names):
        first, second, name = twice
        raise DistilleryError(
            f"{root}: the categories {first} and {second} are both called {name!r}: give each class one id, alike in "
            "both splits"
        )
    number = {c: i for i, c in enumerate(sorted(names))} if renumber else {c: c for c in names}
    class_names = [""] * (max(number.values()) + 1)
    for category, label in number.items():
        class_names[label] = names[category]
    items = {
        split: _of_document(raw[split], root / folder, folder, number, root / annotated(annotations, folder))
        for split, folder in splits.items()
    }
    return Listing(class_names, items)


def annotated(annotations: str, folder: str) -> str:
    """The file of a split's annotations below the root."""
    return annotations.replace("{}", folder)


def named_twice(names: Mapping[int, str]) -> tuple[int, int, str] | None:
    """The first name that two numbers have, after both of these."""
    seen: dict[str, int] = {}
    for number, name in sorted(names.items()):
        if name in seen:
            return seen[name], number, name
        seen[name] = number
    return None


def _document(path: Path) -> dict[str, Any]:
    found = given_json(path) if path.is_file() else None
    if found is None:
        raise DistilleryError(f"there is no file {path}: `data.annotations` says where the annotations of a split are")
    lists = ("images", "annotations", "categories")
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in lists):
        raise DistilleryError(f"{path} has not the lists `images`, `annotations` and `categories` of COCO's format")
    return found


_MALFORMED = (AttributeError, KeyError, OverflowError, TypeError, ValueError)


def _categories(document: dict[str, Any], path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in document["categories"]:
        try:
            category, name = whole_number(entry["id"]), str(entry["name"])
            if not name.strip():  # without a name a number is that of no class
                raise ValueError
        except _MALFORMED:
            raise DistilleryError(
                f"{path}: {_shown(entry)} is no category: give it a whole `id` and a `name`"
            ) from None
        if category in names:
            raise DistilleryError(f"{path}: two categories have the id {category}: give each an id of its own")
        names[category] = name
    return names


def _of_document(document: dict[str, Any], folder: Path, prefix: str, number: dict[int, int], path: Path) -> list[Item]:
    items: dict[Any, Item] = {}
    for entry in document["images"]:
        try:
            known, name, (width, height) = entry["id"], entry["file_name"], map(entry.get, ("width", "height"))
            twice = known in items
            size = (whole_number(width), whole_number(height)) if width and height else None
            items[known] = Item(inside(folder, name, path), f"{prefix}/{name}", [], size=size)
        except _MALFORMED:
            raise DistilleryError(f"{path}: {_shown(entry)} is no image: give it an `id` and a `file_name`") from None
        if twice:
            raise DistilleryError(f"{path}: two images have the id {known!r}: give each an id of its own")
    for entry in document["annotations"]:
        try:
            x, y, w, h = map(float, entry["bbox"])
            crowd, area = ("0", "1").index(str(whole_number(entry.get("iscrowd", 0)))), entry.get("area")
            area = None if area is None else float(area)
            if not all(map(math.isfinite, (x, y, w, h))) or not 0 <= (area or 0) < math.inf:
                raise ValueError
            found = Object((x, y, w, h), number[whole_number(entry["category_id"])], bool(crowd), area)
            items[entry["image_id"]].objects.append(found)
        except _MALFORMED:
            raise DistilleryError(
                f"{path}: the annotation {_shown(entry)} lacks a bbox of four numbers, has an area or `iscrowd` that "
                "is none, or names an image or a category that is not there: mend or remove it"
            ) from None
    return sorted(items.values(), key=lambda item: item.name)


def whole_number(value: Any) -> int:
    """A whole number, or a text of one. Raises ValueError, OverflowError or TypeError."""
    found = int(value)
    if not isinstance(value, str) and found != value:
        raise ValueError
    return found


def _shown(entry: Any) -> str:
    text = str(entry)
    return text if len(text) <= 80 else f"{text[:80]}..."


def inside(folder: Path, name: str, where: Path) -> Path:
    """The file of that name in a folder. Raises DistilleryError for a name that leads out of it."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise DistilleryError(f"{where} names the image {name!r}, outside of {folder}: use names relative to it")
    return path
