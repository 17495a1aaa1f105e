"""CIFAR-100 as photographs are streamed: random parts of its images, enlarged, for networks that want larger ones.

Its 32x32 pixels are kept as bitmaps without compression, so the blob (190 MB) depends on the pixels alone. What is
published for CIFAR-100 is published for this, too.
"""

from __future__ import annotations

import dataclasses
import io
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from distillery.data.arrays import Arrays, Shape
from distillery.data.cifar100 import CIFAR100, MEAN, STD
from distillery.data.listing import Listing, Photo
from distillery.data.streamed import Streamed

_OWN = ("mirror", "download_dir", "subset", "url", "md5", "sha256")  # keys of the source cifar100


class StreamedCIFAR100(Streamed):
    """Read what the source `cifar100` reads, and verify it as that does."""

    upright: ClassVar[bool] = False

    class Config(Streamed.Config, CIFAR100.Config):
        pass

    config: Config

    @cached_property
    def original(self) -> CIFAR100:
        """The images themselves."""
        values = self.config.model_dump(exclude_none=True, include={*_OWN})
        return CIFAR100(CIFAR100.Config.read(values, "data."))

    @cached_property
    def arrays(self) -> Arrays:
        """In memory."""
        return self.original.load()

    def selection(self) -> dict[str, Any]:
        values = {key: value for key, value in self.config.effective().items() if key not in _OWN}
        mean, std = self.constants()
        return self.usual(values) | {"mean": mean, "std": std} | self.original.selection()

    def constants(self) -> tuple[list[float], list[float]]:
        return super().constants() or (MEAN, STD)

    def files(self) -> list[Path]:
        return self.original.files()

    def shape(self) -> Shape | None:  # type: ignore[override]
        """The counts of CIFAR-100, at the size that networks see; nothing is read."""
        found = self.original.shape()
        return found and dataclasses.replace(found, height=self.config.size[0], width=self.config.size[1])

    def listing(self) -> Listing:
        """Name the images by their places in the canonical arrays."""
        names = self.arrays.class_names
        splits = {}
        for split in ("train", "test"):
            labels = self.arrays.tensors[f"{split}_labels"].tolist()
            splits[split] = [Photo(split, f"{split}/{names[y]}/{i:05d}.bmp", y, i) for i, y in enumerate(labels)]
        return Listing(names, splits["train"], splits["test"], "the test images")

    def content(self, photo: Photo) -> bytes:
        """One image as a file."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.arrays.tensors[f"{photo.path}_images"][photo.offset]).save(file, "BMP")
        return file.getvalue()
