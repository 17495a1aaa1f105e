"""Adversarial twins of training images on disk: a zip archive with one losslessly encoded image for each.

A zip archive, stored and not compressed, because it is written image by image and read at random, and torch-free
programs can look into it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distillery.errors import StaleInput
from distillery.records.io import atomic_path


class Twins:
    """The twins of a file, by position in the training set."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises StaleInput if it is none."""
        self.path = path
        try:
            self._file = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile):
            raise StaleInput(f"{path} holds no adversarial images: run the stage `cache` again") from None

    def image(self, row: int) -> Tensor:
        """(3, H, W) uint8."""
        with Image.open(io.BytesIO(self._file.read(f"{row}.png"))) as picture:
            return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def write_twins(path: Path, images: Iterable[Tensor]) -> None:
    """Write (3, H, W) uint8 images in the order of the training set, atomically; the same ones give the same bytes."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for row, image in enumerate(images):
            content = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(content, "PNG")
            file.writestr(zipfile.ZipInfo(f"{row}.png"), content.getvalue())
