"""Which images there are and what is in them, as Pascal VOC's files say it. Nothing is decoded here."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from distillery.data.listing import SUFFIXES
from distillery.errors import DistilleryError
from distillery.tasks.detection.listing import Item, Listing, Object, inside, named_twice, whole_number


def voc(root: Path, splits: dict[str, str], names: list[str] | None, one_based: bool) -> Listing:
    """Pascal VOC's layout: `JPEGImages`, `Annotations/x.xml`, and the names of a split in `ImageSets/Main/SPLIT.txt`.

    Args:
        names: of the classes, in order; None: those that occur, in alphabetical order.
        one_based: pixels count from 1 and both ends belong to the box, as VOC itself has it.
    """
    folder = root / "JPEGImages"
    pictures: dict[str, list[str]] = {}  # names of the files by what they are called without their suffix
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in SUFFIXES:
            pictures.setdefault(path.stem, []).append(path.name)
    read: dict[str, list[tuple[Item, list[_Annotated]]]] = {}
    for split, name in splits.items():
        path = root / "ImageSets" / "Main" / f"{name}.txt"
        if not path.is_file():
            raise DistilleryError(f"there is no file {path}: `data.{split}` names a list of {path.parent}")
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()  # a byte order mark is no part of a name
        except UnicodeDecodeError:
            raise DistilleryError(f"{path} is no text in UTF-8: save it as such, a name a line") from None
        stems = sorted({line.split()[0] for line in lines if line.strip()})
        read[split] = [_annotation(root, stem, path, pictures) for stem in stems]
    seen = {kind for images in read.values() for _, objects in images for kind, _, _ in objects}
    if names is not None and (unknown := sorted(seen - set(names))):
        raise DistilleryError(f"{root}: the class {unknown[0]!r} is not among `data.classes`: add it")
    if names is not None and not all(map(str.strip, names)):
        raise DistilleryError("data.classes has an empty name: name each class")
    if names is not None and (twice := named_twice(dict(enumerate(names)))):
        raise DistilleryError(f"data.classes names {twice[2]!r} twice: name each class once")
    class_names = names if names is not None else sorted(seen)
    items = {
        split: [
            item._replace(objects=[Object(_box(c, one_based), class_names.index(k), d) for k, c, d in objects])
            for item, objects in images
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


class _Annotated(NamedTuple):
    """A class's name, the corners of a box as written, and whether it is difficult."""

    kind: str
    corners: tuple[float, ...]
    difficult: bool


def _annotation(root: Path, stem: str, where: Path, pictures: dict[str, list[str]]) -> tuple[Item, list[_Annotated]]:
    path = inside(root / "Annotations", f"{stem}.xml", where)
    try:
        text = path.read_bytes()
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise DistilleryError(f"{path} declares a document type, which annotations have no need of: take it out")
        tree = ElementTree.fromstring(text)
        if tree.tag != "annotation":
            raise ValueError
        width, height = (whole_number(float(tree.findtext(f"size/{key}") or 0)) for key in ("width", "height"))
        objects = []
        for node in tree.iterfind("object"):
            [box] = node.findall("bndbox")
            [[left], [top], [right], [bottom]] = map(box.findall, ("xmin", "ymin", "xmax", "ymax"))
            corners = tuple(float(corner.text or "nan") for corner in (left, top, right, bottom))
            if not all(map(math.isfinite, corners)) or not (kind := (node.findtext("name") or "").strip()):
                raise ValueError
            difficult = ("0", "1").index((node.findtext("difficult") or "0").strip())
            objects.append(_Annotated(kind, corners, bool(difficult)))
    except OSError as error:
        raise DistilleryError(f"{path} cannot be read ({error.strerror}): {where} names it") from None
    except (ElementTree.ParseError, LookupError, ValueError, OverflowError):  # Lookup: of an encoding
        raise DistilleryError(
            f"{path} is no annotation of Pascal VOC: objects with a name, one bndbox, and `difficult` 0 or 1"
        ) from None
    named = Path((tree.findtext("filename") or "").strip()).name
    picture = root / "JPEGImages" / _picture(root / "JPEGImages", stem, named, pictures.get(stem, []))
    size = (width, height) if width and height else None
    return Item(picture, f"JPEGImages/{picture.name}", [], size=size), objects


def _picture(folder: Path, stem: str, named: str, mine: list[str]) -> str:
    """The file of an annotation: the one that is called like it, and only without one the one that it names.

    Files are renamed and annotations copied, and then the names in them are those of other images.
    """
    if named in mine:
        return named
    if len(mine) > 1:
        raise DistilleryError(f"{folder} holds {' and '.join(mine)}: keep one picture for each annotation")
    if mine:
        return mine[0]
    return named if named and (folder / named).is_file() else f"{stem}.jpg"
