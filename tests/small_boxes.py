"""Images of drawn rectangles, red or green, as folders in the layouts of COCO, YOLO and Pascal VOC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ["green", "red"]  # in alphabetical order
Boxes = list[tuple[int, int, int, int, int]]  # left, top, width, height, class


def pictures(count: int, seed: int, size: tuple[int, int] = (48, 64), most: int = 3) -> list[tuple[np.ndarray, Boxes]]:
    """Noisy images (height, width, 3) with one rectangle or more in each."""
    rng, made = np.random.default_rng(seed), []
    height, width = size
    for _ in range(count):
        image, boxes = rng.integers(0, 60, (height, width, 3), dtype=np.uint8), []
        for _ in range(rng.integers(1, most + 1)):
            w, h = rng.integers(10, 28, 2).tolist()
            x, y, label = int(rng.integers(0, width - w)), int(rng.integers(0, height - h)), int(rng.integers(2))
            image[y : y + h, x : x + w] = (230, 40, 40) if label else (40, 200, 60)
            boxes.append((x, y, w, h, label))
        made.append((image, boxes))
    return made


def _save(folder: Path, made: list[tuple[np.ndarray, Boxes]]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:03}.png" for i in range(len(made))]
    for name, (image, _) in zip(names, made, strict=True):
        Image.fromarray(image).save(folder / name)
    return names


def write_coco(root: Path, splits: dict[str, list[tuple[np.ndarray, Boxes]]], **changes: Any) -> None:
    """COCO's layout; the categories are 3 (green) and 7 (red). `changes`: more annotations of the first image."""
    for split, made in splits.items():
        names = _save(root / split, made)
        images = [
            {"id": 10 + i, "file_name": n, "height": m[0].shape[0], "width": m[0].shape[1]}
            for i, (n, m) in enumerate(zip(names, made, strict=True))
        ]
        objects = [
            {"image_id": 10 + i, "category_id": (3, 7)[label], "bbox": [x, y, w, h], "area": w * h / 2, "iscrowd": 0}
            for i, (_, boxes) in enumerate(made)
            for x, y, w, h, label in boxes
        ]
        objects += [{"image_id": 10, "category_id": 3} | extra for extra in changes.get("extra", [])]
        for i, entry in enumerate(objects):
            entry["id"] = i + 1
        kinds = [{"id": 3, "name": "green"}, {"id": 7, "name": "red"}]
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": objects, "categories": kinds}))


def write_yolo(root: Path, splits: dict[str, list[tuple[np.ndarray, Boxes]]]) -> None:
    for split, made in splits.items():
        names, folder = _save(root / "images" / split, made), root / "labels" / split
        folder.mkdir(parents=True, exist_ok=True)
        for name, (image, boxes) in zip(names, made, strict=True):
            height, width = image.shape[:2]
            lines = [
                f"{c} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}" for x, y, w, h, c in boxes
            ]
            (folder / name).with_suffix(".txt").write_text("\n".join(lines))
    (root / "config.yaml").write_text("names: {0: green, 1: red}\n")


def write_voc(root: Path, splits: dict[str, list[tuple[np.ndarray, Boxes]]], more: str = "") -> None:
    """Pascal VOC's layout; `more` is put into the first annotation of each split."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, made in splits.items():
        stems = []
        for i, (image, boxes) in enumerate(made):
            stem = f"{split}_{i:03}"
            stems.append(stem)
            (root / "JPEGImages").mkdir(exist_ok=True)
            Image.fromarray(image).save(root / "JPEGImages" / f"{stem}.png")
            objects = "".join(
                f"<object><name>{NAMES[c]}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax>"
                f"<ymax>{y + h}</ymax></bndbox></object>"
                for x, y, w, h, c in boxes
            )
            text = f"<annotation><filename>{stem}.png</filename>{objects}{more if i == 0 else ''}</annotation>"
            (root / "Annotations" / f"{stem}.xml").write_text(text)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems))
