"""From a listing of image files to the canonical arrays: all of them decoded, the bad ones named."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from distillery import settings
from distillery.config import Share, Spread
from distillery.data.arrays import Arrays, Bytes, Shape, Source
from distillery.data.listing import Listing, Photo, suffixes_of
from distillery.data.pixels import as_labels, constants, hash_image, repeated
from distillery.errors import DistilleryError
from distillery.errors.words import some

EVERY = 10.0  # seconds between two lines that say how far it is
PER_CHANNEL = Field(None, min_length=1, max_length=3)


def side_lengths(value: Any) -> tuple[int, int]:
    """Height and width of a number or a list of two; ValueError for anything else."""
    sides = [value, value] if type(value) is int else value
    if not (isinstance(sides, list | tuple) and len(sides) == 2 and all(type(s) is int and s > 0 for s in sides)):
        raise ValueError("a number of pixels, or a list of two: height and width")
    return (sides[0], sides[1])


class Photos(Source):
    """Base of the sources that are files of images: how they are decoded and what they are normalised with."""

    class Config(Source.Config):
        size: Annotated[tuple[int, int], BeforeValidator(side_lengths)] = (64, 64)
        """Height and width in pixels, or one number for both."""
        resize: Literal["crop", "squash"] = "crop"
        """crop: the short side is resized to `size`, then the centre is cut out; squash: both sides are resized."""
        channels: Literal[1, 3] = 3
        """3, or 1 for grey images."""
        mean: Annotated[tuple[Share, ...] | None, PER_CHANNEL] = None
        """Per channel, between 0 and 1, that images are normalised with; default: of the training images."""
        std: Annotated[tuple[Spread, ...] | None, PER_CHANNEL] = None
        """Likewise the standard deviation; give both or neither."""
        skip_bad: bool = False
        """Leave out files that are no readable images, instead of refusing the whole folder."""

        @model_validator(mode="after")
        def _whole(self) -> Photos.Config:
            if (self.mean is None) != (self.std is None):
                raise ValueError("mean and std: give both or neither")
            if self.mean is not None and not len(self.mean) == len(self.std or ()) == self.channels:
                raise ValueError(f"mean and std: give {self.channels} numbers each, one for each of the channels")
            return self

    config: Config

    def listing(self) -> Listing:
        """List the image files. Raises DistilleryError if the folder is not as it should be."""
        raise TypeError(f"{type(self).__name__} defines no listing()")

    def shape(self) -> Shape:
        found = self.listing()
        return Shape(self.config.channels, *self.config.size, len(found.class_names), len(found.train), len(found.test))

    def load(self) -> Arrays:
        listing = self.listing()
        if listing.left_out:
            print(f"left out, because not images by their suffix: {suffixes_of(listing.left_out)}", flush=True)
        read, hashes = dict[str, tuple[Bytes, list[Photo]]](), dict[str, list[bytes]]()
        bad: list[str] = []
        for split, photos in (("train", listing.train), ("test", listing.test)):
            images, whys = self._read(photos, split)
            good = [i for i, why in enumerate(whys) if isinstance(why, bytes)]
            bad += [f"{photos[i].name} ({why})" for i, why in enumerate(whys) if isinstance(why, str)]
            read[split] = (images if len(good) == len(photos) else images[good], [photos[i] for i in good])
            hashes[split] = [why for why in whys if isinstance(why, bytes)]
        judge(bad, listing, {split: photos for split, (_, photos) in read.items()}, self.config.skip_bad)
        if count := repeated(hashes["train"], hashes["test"]):
            print(
                f"{count:,} of {len(hashes['test']):,} test images also occur in training, pixel by pixel", flush=True
            )
        mean, std = constants(self.config.mean, self.config.std, read["train"][0])
        tensors: dict[str, Any] = {f"{split}_images": images for split, (images, _) in read.items()}
        for split, (_, photos) in read.items():
            tensors[f"{split}_labels"] = as_labels([photo.label for photo in photos], len(listing.class_names))
        selection = {k: v for k, v in self.selection().items() if k not in ("test", "test_fraction")}
        selection |= {"tested": listing.tested, "left_out": len(bad), "repeated": count}
        return Arrays(tensors, listing.class_names, 255.0, mean, std, selection)

    def _read(self, photos: Sequence[Photo], split: str) -> tuple[Bytes, list[bytes | str]]:
        """Decode files into one array; return also, of each, the hash of its pixels, or why it cannot be read."""
        from distillery.data.pictures import Unreadable, decode, quietly  # Pillow

        config = self.config
        images = np.zeros((len(photos), *config.size, config.channels), dtype=np.uint8)

        def read(i: int) -> bytes | str:
            try:
                images[i] = decode(Path(photos[i].path).read_bytes(), config.size, config.resize, config.channels)
            except Unreadable as error:
                return str(error)
            except OSError as error:
                return "a link that leads nowhere" if Path(photos[i].path).is_symlink() else str(error.strerror)
            return hash_image(images[i])

        found: list[bytes | str] = []
        last = time.monotonic()
        with quietly(), ThreadPoolExecutor(settings.threads()) as pool:
            for result in pool.map(read, range(len(photos))):
                found.append(result)
                if len(found) == len(photos) or time.monotonic() - last >= EVERY:
                    last = time.monotonic()
                    print(f"{split}: image {len(found)}/{len(photos)}", flush=True)
        return images, found


def judge(bad: list[str], listing: Listing, left: dict[str, list[Photo]], skip_bad: bool) -> None:
    """Refuse bad files, or say that they were left out; refuse classes that nothing is left of."""
    if not bad:
        return
    total = len(listing.train) + len(listing.test)
    said = f"{len(bad):,} of {total:,} files {'is no readable image' if len(bad) == 1 else 'are no readable images'}"
    said += f": {some(bad)}"
    if not skip_bad:
        raise DistilleryError(f"{said}; mend or remove them, or leave them out by `data.skip_bad: true`")
    print(f"left out: {said}", flush=True)
    for split, photos in left.items():
        there = {photo.label for photo in photos}
        if lone := [repr(name) for i, name in enumerate(listing.class_names) if i not in there]:
            raise DistilleryError(f"no readable {split} image is left of {some(lone)}: mend or remove the class")
