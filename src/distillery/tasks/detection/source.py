"""Images with boxes from the user's files: what the data stage keeps of them, whatever their layout (layouts.py)."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from distillery.config import Config as BaseConfig
from distillery.config import Count, Share, Spread
from distillery.data.arrays import Arrays, Source
from distillery.data.blob import Written, read_photo, write_blob
from distillery.data.listing import Photo
from distillery.data.pixels import repeated
from distillery.errors import DistilleryError
from distillery.records.io import save_tensors, sha256_array, sha256_json
from distillery.tasks.detection.listing import Item, Listing
from distillery.tasks.detection.refused import see_sizes, see_turned, see_units

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as every detector of the lineage has it
PER_CHANNEL = Field(min_length=3, max_length=3)
# Objects as columns (see `Boxed.write`), and how many were cut, dropped, doubled or crowds.
Columns = tuple[dict[str, NDArray[Any]], Counter[str]]


class Cropped(BaseConfig):
    """With probability one half an image is resized, and a part of it cut out, before it is resized as the others are.

    Defaults: those of DETR and ViDT, in pixels.
    """

    resize: tuple[Count, ...] = (400, 500, 600)
    """To one of which the short side is resized before."""
    least: Count = 384
    """Of the part's sides."""
    most: Count = 600
    """Of the part's sides."""


class Boxed(Source):
    """Base of the sources of images with boxes. The data stage keeps the encoded images and an index with the boxes.

    Boxes are cut at the image's edges; what is left with no area is dropped and counted, as is a box that an image has
    twice with one class. A crowd (VOC: a difficult object) is no training target, and in the test neither a miss nor a
    false alarm, as in COCO's evaluation.
    """

    streamed: ClassVar[bool] = True

    class Config(Source.Config):
        root: str
        """The folder; a relative path starts where the commands are run."""
        train: str
        """What is trained on."""
        test: str
        """What is tested on."""
        short_side: Count = 800
        """To which the short side of an image is resized for the test, and for training unless `scales` says more."""
        max_side: Count = 1333
        """That the long side does not exceed, but for a pixel of DETR's rounding; the short one is then shorter."""
        scales: tuple[Count, ...] = ()
        """To one of which, at random, the short side is resized for training."""
        crop: Cropped | None = None
        """Whether parts of the images are trained on as well."""
        mean: Annotated[tuple[Share, ...], PER_CHANNEL] = MEAN
        """Per channel, between 0 and 1, that images are normalised with."""
        std: Annotated[tuple[Spread, ...], PER_CHANNEL] = STD
        """Likewise the standard deviation."""
        skip_bad: bool = False
        """Leave out files that are no readable images, instead of refusing the whole data set."""

        @model_validator(mode="after")
        def _whole(self) -> Boxed.Config:
            if self.max_side < self.short_side:
                raise ValueError(f"max_side must be {self.short_side} (short_side) or more")
            if self.scales and max(self.scales) > self.max_side:
                raise ValueError(
                    f"scales: {max(self.scales)} is above max_side ({self.max_side}), which no side exceeds"
                )
            if self.crop and self.crop.least > self.crop.most:
                raise ValueError("crop.least is above crop.most")
            return self

    config: Config

    def listing(self) -> Listing:
        """List the images and what is in them. Raises DistilleryError if the files are not as they should be."""
        raise TypeError(f"{type(self).__name__} defines no listing()")

    @property
    def root(self) -> Path:
        return Path(self.config.root).expanduser()

    def named(self) -> list[Path]:
        """Files and folders that options name, which may lie outside of `root`."""
        return []

    def files(self) -> list[Path]:
        """The folder, and what is read outside of it."""
        return [self.root, *(p for p in self.named() if Path(os.path.relpath(p, self.root)).parts[:1] == ("..",))]

    def selection(self) -> dict[str, Any]:
        return {key: value for key, value in self.config.effective().items() if key != "root"}

    def splits(self) -> dict[str, str]:
        return {"train": self.config.train, "test": self.config.test}

    def load(self) -> Arrays:
        raise DistilleryError("data.source: images with boxes are never made into arrays: use write()")

    def write(self, name: str, index: Path, blob: Path) -> dict[str, Any]:
        """Write the images' bytes, in canonical order, and the index to them; return the facts, which it holds too.

        Both files and the facts depend on the content alone. Besides the columns of a blob's index each split has
        `starts` (N + 1,) int64, from where to where an image's objects are; `boxes` (M, 4) float64, left, top, width
        and height in pixels; `labels` (M,) int32; `crowd` (M,) uint8; `area` (M,) float64, as annotated, else of the
        box.
        """
        from distillery.tasks.detection.orientation import orientation  # Pillow

        found = self.listing()
        items = {split: {item.name: item for item in of} for split, of in found.items.items()}
        for split, of in items.items():
            if not of:
                raise DistilleryError(f"data.{split}: there is no image in {self.splits()[split]} of {self.root}")

        columns: dict[str, Columns] = {}
        turned: dict[str, int] = {}  # EXIF orientation by path, of the images that are marked to be turned

        def note(photo: Photo) -> bytes:
            content = read_photo(photo)
            if (way := orientation(content)) != 1:
                turned[photo.path] = way
            return content

        def judge(written: dict[str, Written]) -> None:
            columns.update(self._columns(written, items, turned))

        photos = {split: [Photo(str(item.path), item.name, 0) for item in of.values()] for split, of in items.items()}
        written, digest, size = write_blob(blob, photos, upright=False, judge=judge, read=note)
        tensors: dict[str, NDArray[Any]] = {}
        counts: dict[str, int] = {}
        for split, part in written.items():
            tensors |= {f"{split}_{key}": column for key, column in part.columns().items()}
            of_objects, dropped = columns[split]
            tensors |= {f"{split}_{key}": column for key, column in of_objects.items()}
            counts |= {split: len(part.photos), f"{split}_objects": len(of_objects["boxes"])}
            counts |= {f"{split}_{key}": number for key, number in sorted(dropped.items())}
            counts[f"{split}_left_out"] = len(part.bad)
        if count := repeated(written["train"].sha256, written["test"].sha256):
            print(f"{count:,} of {counts['test']:,} test images also occur in training, byte for byte", flush=True)
            counts["test_repeated"] = count
        hashes = {key: sha256_array(array) for key, array in tensors.items()}
        facts = {
            "source": name,
            "selection": self.selection(),
            "counts": counts,
            "shape": [self.config.short_side, self.config.max_side, 3],
            "short_side": self.config.short_side,
            "num_classes": len(found.class_names),
            "class_names": found.class_names,
            "scale": 255.0,
            "mean": list(self.config.mean),
            "std": list(self.config.std),
            "blob": {"sha256": digest, "bytes": size},
            "sha256_of": hashes,  # of the raw bytes of each array, in C order
            "content": sha256_json(hashes),
        }
        save_tensors(Path(index), tensors, {"facts": json.dumps(facts, sort_keys=True)})
        return facts

    def _columns(
        self, written: dict[str, Written], items: dict[str, dict[str, Item]], turned: dict[str, int]
    ) -> dict[str, Columns]:
        """The columns of each split's objects. Raises DistilleryError for images or boxes that cannot be used."""
        bad = [said for part in written.values() for said in part.bad]
        if bad and not self.config.skip_bad:
            raise DistilleryError(
                f"{len(bad)} of the files in {self.root} cannot be used, such as {bad[0]}: repair or remove them, "
                "or set `data.skip_bad: true`"
            )
        found = {}
        for split, part in written.items():
            shown = [items[split][photo.name] for photo in part.photos]
            assumed = see_turned(shown, part.height, part.width, turned)
            see_sizes(shown, part.height, part.width)
            see_units(f"data.{split}", shown, part.height, part.width)
            arrays, notes = found[split] = columns_of(shown, part.height, part.width)
            notes["turned"] = assumed
            if assumed:
                print(
                    f"data.{split}: EXIF turns {assumed:,} of {len(shown):,} images in a way that changes no side: "
                    "boxes are taken for those of the images as they are stored",
                    flush=True,
                )
            if arrays["crowd"].all():
                raise DistilleryError(
                    f"data.{split}: no object is in the images of {self.splits()[split]}: annotate them"
                )
        return found


def columns_of(items: list[Item], heights: list[int], widths: list[int]) -> Columns:
    """The objects of some images; heights and widths in pixels."""
    starts, boxes, labels, crowd, area = [0], [], [], [], []
    notes: Counter[str] = Counter(cut=0, dropped=0, crowds=0, empty=0, doubled=0)
    for item, height, width in zip(items, heights, widths, strict=True):
        scale = np.array([width, height] if item.relative else [1, 1], dtype=np.float64)
        objects = dict.fromkeys(item.objects)  # an object that was written down twice could be found only once
        notes["doubled"] += len(item.objects) - len(objects)
        for entry in objects:
            corner, size = np.array(entry.box[:2]) * scale, np.array(entry.box[2:]) * scale
            low = np.clip(corner, 0, [width, height])
            high = np.clip(corner + size, 0, [width, height])
            if not (size > 0).all() or not (high > low).all():
                notes["dropped"] += 1
                continue
            outside = bool((np.abs(low - corner) > 1e-6).any() or (np.abs(high - corner - size) > 1e-6).any())
            notes["cut"] += outside
            notes["crowds"] += entry.crowd
            left = (high - low) if outside else size  # of a box within the image no digit changes
            boxes.append([*(low if outside else corner), *left])
            labels.append(entry.label)
            crowd.append(entry.crowd)
            area.append(left.prod() if entry.area is None else entry.area)
        notes["empty"] += starts[-1] == len(boxes)
        starts.append(len(boxes))
    return {
        "starts": np.array(starts, dtype=np.int64),
        "boxes": np.array(boxes, dtype=np.float64).reshape(-1, 4),
        "labels": np.array(labels, dtype=np.int32),
        "crowd": np.array(crowd, dtype=np.uint8),
        "area": np.array(area, dtype=np.float64),
    }, notes
