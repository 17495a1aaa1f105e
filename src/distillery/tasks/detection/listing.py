"""Which images there are and what is in them, as three formats of files say it. Nothing is decoded here."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from distillery.data.listing import SUFFIXES
from distillery.errors import DistilleryError
from distillery.records.io import read_json

SPLITS = ("train", "test")


class Object(NamedTuple):
    """One annotation: left, top, width and height in pixels; its class; whether it is a crowd; its area or None."""

    box: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None


class Item(NamedTuple):
    """An image file, its name relative to the root, and what is in it.

    `relative`: boxes are in units of the image, for which its size must be known first.
    """

    path: Path
    name: str
    objects: list[Object]
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of both splits, each sorted by name, and the name of every class; "" where a number has none."""

    class_names: list[str]
    items: dict[str, list[Item]]


# --- COCO


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
        path = root / annotations.format(folder)
        raw[split] = _document(path)
        names |= {int(c["id"]): str(c["name"]) for c in raw[split]["categories"]}
    if not names:
        raise DistilleryError(f"{root}: the annotations name no categories")
    if min(names) < 0:
        raise DistilleryError(f"{root}: the category {min(names)} is negative: number categories from 0 or 1")
    number = {c: i for i, c in enumerate(sorted(names))} if renumber else {c: c for c in names}
    class_names = [""] * (max(number.values()) + 1)
    for category, label in number.items():
        class_names[label] = names[category]
    items = {
        split: _of_document(raw[split], root / splits[split], splits[split], number, root / annotations.format(folder))
        for split, folder in splits.items()
    }
    return Listing(class_names, items)


def _document(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else None
    if found is None:
        raise DistilleryError(f"there is no file {path}: `data.annotations` says where the annotations of a split are")
    if not isinstance(found, dict) or not all(isinstance(found.get(k), list) for k in ("images", "categories")):
        raise DistilleryError(f"{path} has not the lists `images`, `annotations` and `categories` of COCO's format")
    return found


def _of_document(document: dict[str, Any], folder: Path, prefix: str, number: dict[int, int], path: Path) -> list[Item]:
    objects: dict[Any, list[Object]] = {image["id"]: [] for image in document["images"]}
    for entry in document.get("annotations", ()):
        try:
            x, y, w, h = map(float, entry["bbox"])
            label, crowd, area = number[int(entry["category_id"])], bool(entry.get("iscrowd", 0)), entry.get("area")
            objects[entry["image_id"]].append(Object((x, y, w, h), label, crowd, None if area is None else float(area)))
        except (KeyError, TypeError, ValueError):
            raise DistilleryError(
                f"{path}: the annotation {entry.get('id', '?')} lacks a bbox of four numbers, or names an image or "
                "a category that is not there"
            ) from None
    images = sorted(document["images"], key=lambda image: str(image["file_name"]))
    return [
        Item(inside(folder, str(i["file_name"]), path), f"{prefix}/{i['file_name']}", objects[i["id"]]) for i in images
    ]


def inside(folder: Path, name: str, where: Path) -> Path:
    """The file of that name in a folder. Raises DistilleryError for a name that leads out of it."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DistilleryError(f"{where} names the image {name!r}, outside of {folder}: use names relative to it")
    return path


# --- YOLO


def yolo(root: Path, splits: dict[str, str], names: list[str]) -> Listing:
    """YOLO's layout: `images/SPLIT/x.jpg` and `labels/SPLIT/x.txt`.

    Lines of a text file are a class and a box in units of the image.

    An image without a text file has no objects. A line of more than five numbers is a polygon, whose extent counts.
    """
    items = {}
    for split, name in splits.items():
        folder = root / "images" / name
        if not folder.is_dir():
            raise DistilleryError(f"there is no folder {folder}: `data.{split}` names it below `data.root`/images")
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        items[split] = [
            Item(p, f"{name}/{p.name}", _lines(root / "labels" / name / f"{p.stem}.txt", len(names)), True)
            for p in files
        ]
    return Listing(names, items)


def yolo_names(path: Path) -> list[str]:
    """The classes' names in a YOLO data file: a list, or a mapping of numbers from 0 to names."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DistilleryError(
            f"{path} cannot be read as YAML ({type(error).__name__}): `data.names` names the file"
        ) from None
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DistilleryError(f"{path} has no `names:` of the classes, a list or a mapping from 0 on")
    return [str(name) for name in names]


def _lines(path: Path, classes: int) -> list[Object]:
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            label, *values = line.split()
            at = [float(v) for v in values]
            if len(at) < 4 or len(at) % 2 or not 0 <= int(label) < classes:
                raise ValueError
        except ValueError:
            raise DistilleryError(
                f"{path}, line {number}: expected a class below {classes} and centre, width and height between 0 and 1"
            ) from None
        if len(at) == 4:
            x, y, w, h = at
            box = (x - w / 2, y - h / 2, w, h)
        else:
            xs, ys = at[0::2], at[1::2]
            box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
        found.append(Object(box, int(label)))
    return found


# --- Pascal VOC


def voc(root: Path, splits: dict[str, str], names: list[str] | None, one_based: bool) -> Listing:
    """Pascal VOC's layout: `JPEGImages`, `Annotations/x.xml`, and the names of a split in `ImageSets/Main/SPLIT.txt`.

    Args:
        names: of the classes, in order; None: those that occur, in alphabetical order.
        one_based: pixels count from 1 and both ends belong to the box, as VOC itself has it.
    """
    read: dict[str, list[tuple[Path, str, list[tuple[str, tuple[float, ...], bool]]]]] = {}
    for split, name in splits.items():
        path = root / "ImageSets" / "Main" / f"{name}.txt"
        if not path.is_file():
            raise DistilleryError(f"there is no file {path}: `data.{split}` names a list of {path.parent}")
        stems = sorted({line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()})
        read[split] = [_annotation(root, stem, path) for stem in stems]
    seen = {kind for images in read.values() for _, _, objects in images for kind, _, _ in objects}
    if names is not None and (unknown := sorted(seen - set(names))):
        raise DistilleryError(f"{root}: the class {unknown[0]!r} is not among `data.classes`: add it")
    class_names = names if names is not None else sorted(seen)
    items = {
        split: [
            Item(path, name, [Object(_box(c, one_based), class_names.index(k), d) for k, c, d in objects])
            for path, name, objects in images
        ]
        for split, images in read.items()
    }
    return Listing(class_names, items)


def _box(at: tuple[float, ...], one_based: bool) -> tuple[float, float, float, float]:
    left, top, right, bottom = at
    if right <= left or bottom <= top:  # nothing in either convention
        return left, top, 0.0, 0.0
    start = 1.0 if one_based else 0.0
    return left - start, top - start, right - left + start, bottom - top + start


def _annotation(root: Path, stem: str, where: Path) -> tuple[Path, str, list[tuple[str, tuple[float, ...], bool]]]:
    path = inside(root / "Annotations", f"{stem}.xml", where)
    try:
        text = path.read_bytes()
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise DistilleryError(f"{path} declares a document type, which annotations have no need of: take it out")
        tree = ElementTree.fromstring(text)
        objects = []
        for node in tree.iterfind("object"):
            corners = tuple(float(node.findtext(f"bndbox/{key}") or "nan") for key in ("xmin", "ymin", "xmax", "ymax"))
            if corners != corners or not (kind := (node.findtext("name") or "").strip()):
                raise ValueError
            objects.append((kind, corners, (node.findtext("difficult") or "0").strip() == "1"))
    except OSError as error:
        raise DistilleryError(f"{path} cannot be read ({error.strerror}): {where} names it") from None
    except (ElementTree.ParseError, ValueError):
        raise DistilleryError(f"{path} is no annotation of Pascal VOC: objects with a name and a bndbox") from None
    name = (tree.findtext("filename") or "").strip()
    picture = root / "JPEGImages" / (Path(name).name if name else f"{stem}.jpg")
    if not picture.is_file():
        picture = root / "JPEGImages" / f"{stem}.jpg"
    return picture, f"JPEGImages/{picture.name}", objects
