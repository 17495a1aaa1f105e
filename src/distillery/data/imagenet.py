"""ImageNet-1k (ILSVRC 2012): 1,281,167 training and 50,000 validation images of 1,000 classes, which are tested.

Its folder holds either the archives as distributed, which are read where they are and never unpacked, or `train/` and
`val/` as most tools want them: a folder for each class, called by its WordNet id, in both; or the validation images all
in `val/`, as their archive has them. A part of the classes will do. Classes are numbered in the order of their ids.

Images are what torchvision's `ImageFolder` makes of them, so that published numbers can be compared: Pillow's
conversion to RGB, which undoes CMYK (22 images) and takes no account of EXIF orientations.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from distillery.data.imagenet_archives import DEVKIT, TRAIN, VALIDATION, labelled, list_train, list_validation
from distillery.data.listing import Listing, Photo, in_splits, list_classes, subfolders
from distillery.data.rooted import Rooted
from distillery.data.streamed import Streamed
from distillery.errors import DistilleryError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of all published weights and results
COUNTS = (1_281_167, 50_000)


class ImageNet(Rooted, Streamed):
    """Read ImageNet-1k from its archives or folders; nothing is downloaded: its licence asks for a registration."""

    upright: ClassVar[bool] = False

    class Config(Streamed.Config):
        root: str
        """The folder that holds the archives (the two ILSVRC2012 tars and the development kit), or train and val."""

    config: Config

    def selection(self) -> dict[str, Any]:
        mean, std = self.constants()
        return self.usual(self.chosen()) | {"mean": mean, "std": std}

    def constants(self) -> tuple[list[float], list[float]]:
        return super().constants() or (MEAN, STD)

    def files(self) -> list[Path]:
        root = self.root
        archives = [root / name for name in (TRAIN, VALIDATION, DEVKIT)]
        if archives[0].exists():
            return archives
        return [root / "train", root / "val", *(p for p in archives[2:] if p.exists())]  # classes of a flat `val`

    def listing(self) -> Listing:
        root = self.root
        folders = subfolders(root)
        if (root / TRAIN).exists():
            train = list_train(root / TRAIN)
            test = list_validation(root / VALIDATION, root / DEVKIT, train.class_names)
        elif "train" in folders and "val" in folders:
            train = list_classes(root / "train", root)
            flat = not subfolders(root / "val")
            test = _flat(root, train.class_names) if flat else list_classes(root / "val", root)
        else:
            raise DistilleryError(
                f"data.root: {root} holds neither {TRAIN} nor folders train and val: name the folder of ImageNet"
            )
        found = in_splits(train, test, root, "val")
        if (counts := (len(found.train), len(found.test))) != COUNTS:
            print(f"{counts[0]:,} training and {counts[1]:,} validation images: a part of ImageNet-1k", flush=True)
        return dataclasses.replace(found, tested="the validation images")


def _flat(root: Path, wnids: list[str]) -> Listing:
    """The validation images as their archive has them, unpacked."""
    photos = [
        Photo(str(path), f"val/{path.name}", 0)
        for path in sorted((root / "val").iterdir())
        if path.suffix == ".JPEG" and not path.name.startswith(".")
    ]
    return labelled(photos, root / DEVKIT, wnids)
