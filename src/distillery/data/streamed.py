"""Sources whose images are too many for arrays: the data stage writes their encoded bytes and an index instead."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from distillery.config import Share, Spread
from distillery.data.arrays import Arrays, Shape, Source
from distillery.data.blob import Written, read_photo, write_blob
from distillery.data.listing import Listing, Photo, suffixes_of
from distillery.data.photos import EVERY, judge, side_lengths
from distillery.data.pixels import as_labels, of_counts, repeated
from distillery.errors import DistilleryError
from distillery.records.io import save_tensors, sha256_array, sha256_json

SHORT_SIDE = 256 / 224  # of the evaluation's view: what the short side is resized to, in units of the crop
PER_CHANNEL = Field(None, min_length=3, max_length=3)


class Streamed(Source):
    """Base of the sources whose images are decoded anew in every epoch; they are colour images.

    Attributes:
        upright: whether images are turned as their EXIF orientation says, and what is transparent is laid on white;
            else they are what torchvision's `ImageFolder` makes of them.
    """

    streamed: ClassVar[bool] = True
    upright: ClassVar[bool] = True

    class Config(Source.Config):
        size: Annotated[tuple[int, int], BeforeValidator(side_lengths)] = (224, 224)
        """Height and width in pixels of what networks see, or one number for both."""
        short_side: Annotated[int, Field(ge=1)] | None = None
        """To which the short side is resized before the centre is tested; default: the longer of `size` * 256 / 224."""
        interpolation: Literal["bilinear", "bicubic"] = "bilinear"
        """By which crops, and images that are tested, are resized; with antialiasing."""
        mean: Annotated[tuple[Share, ...] | None, PER_CHANNEL] = None
        """Per channel, between 0 and 1, that images are normalised with; default: of the training images."""
        std: Annotated[tuple[Spread, ...] | None, PER_CHANNEL] = None
        """Likewise the standard deviation; give both or neither."""
        skip_bad: bool = False
        """Leave out files that are no readable images, instead of refusing the whole data set."""

        @model_validator(mode="after")
        def _whole(self) -> Streamed.Config:
            if (self.mean is None) != (self.std is None):
                raise ValueError("mean and std: give both or neither")
            if self.short_side is not None and self.short_side < max(self.size):
                raise ValueError(f"short_side must be {max(self.size)} (of size) or more")
            return self

    config: Config

    def listing(self) -> Listing:
        """List the images. Raises DistilleryError if they are not as they should be."""
        raise TypeError(f"{type(self).__name__} defines no listing()")

    def content(self, photo: Photo) -> bytes:
        """The bytes of an image file. Raises OSError."""
        return read_photo(photo)

    def constants(self) -> tuple[list[float], list[float]] | None:
        """Mean and std, where they need not be counted."""
        mean, std = self.config.mean, self.config.std
        return None if mean is None or std is None else ([*mean], [*std])

    def short_side(self) -> int:
        given = self.config.short_side
        return given if given is not None else round(max(self.config.size) * SHORT_SIDE)

    def usual(self, chosen: dict[str, Any]) -> dict[str, Any]:
        """Options with the default of `short_side`, and without an `interpolation` that is as it always was."""
        kept = {key: v for key, v in chosen.items() if key != "interpolation" or v != "bilinear"}
        return kept | {"short_side": self.short_side()}

    def shape(self) -> Shape:
        found = self.listing()
        return Shape(3, *self.config.size, len(found.class_names), len(found.train), len(found.test))

    def write(self, name: str, index: Path, blob: Path) -> dict[str, Any]:
        return prepare_blob(name, self, index, blob)

    def load(self) -> Arrays:
        raise DistilleryError("data.source: these images are streamed and never made into arrays: use prepare_blob()")


def prepare_blob(name: str, source: Streamed, index: Path, blob: Path) -> dict[str, Any]:
    """Write the images of a source, in canonical order, and the index to them; return the facts, which it holds too.

    Both files and the facts depend on the content alone. The index is a safetensors file: of each split the columns of
    `Written.columns`, and labels (N,) uint8, or uint16 for more than 256 classes. Each file is written atomically, the
    index last: a blob without an index was interrupted.

    Args:
        name: of the source, for the facts.

    Raises:
        DistilleryError: naming what is missing, contradictory or unreadable.
    """
    listing, known = source.listing(), source.constants()
    if listing.left_out:
        print(f"left out, because not images by their suffix: {suffixes_of(listing.left_out)}", flush=True)

    def check(written: dict[str, Written]) -> None:
        bad = [said for part in written.values() for said in part.bad]
        judge(bad, listing, {split: part.photos for split, part in written.items()}, source.config.skip_bad)

    splits = {"train": listing.train, "test": listing.test}
    written, digest, size = write_blob(
        blob, splits, source.upright, None if known else source.config.size, _Lines(), check, source.content
    )
    train, test = written["train"], written["test"]
    if count := repeated(train.sha256, test.sha256):
        print(f"{count:,} of {len(test.photos):,} test images also occur in training, byte for byte", flush=True)
    mean, std = known or of_counts(train.counts)
    tensors: dict[str, Any] = {}
    for split, part in written.items():
        tensors |= {f"{split}_{key}": column for key, column in part.columns().items()}
        tensors[f"{split}_labels"] = as_labels([photo.label for photo in part.photos], len(listing.class_names))
    hashes = {key: sha256_array(array) for key, array in tensors.items()}
    selection = {k: v for k, v in source.selection().items() if k not in ("test", "test_fraction")}
    facts = {
        "source": name,
        "selection": selection
        | {"tested": listing.tested, "left_out": sum(len(part.bad) for part in written.values()), "repeated": count},
        "counts": {"train": len(train.photos), "test": len(test.photos)},
        "shape": [*source.config.size, 3],
        "short_side": source.short_side(),
        "num_classes": len(listing.class_names),
        "class_names": listing.class_names,
        "scale": 255.0,
        "mean": mean,
        "std": std,
        "blob": {"sha256": digest, "bytes": size},
        "sha256_of": hashes,  # of the raw bytes of each array, in C order
        "content": sha256_json(hashes),
    }
    if source.config.interpolation != "bilinear":
        facts["interpolation"] = source.config.interpolation
    save_tensors(Path(index), tensors, {"facts": json.dumps(facts, sort_keys=True)})
    return facts


class _Lines:
    """A line every so often that says how far it is."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, split: str, done: int, total: int) -> None:
        if done == total or time.monotonic() - self.last >= EVERY:
            self.last = time.monotonic()
            print(f"{split}: image {done}/{total}", flush=True)
