"""Own images: a folder with a sub-folder for each class, as torchvision's `ImageFolder` has it.

Either `train/` and `test/` (or `val/`, `valid/`, `validation/`) lie in it and hold the class folders, or it holds the
class folders itself, and a fixed share of each class is tested: the images whose names, relative to the folder, have
the lowest sha256. Classes are numbered in the order of their names. `pictures.py` says how files are read.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from distillery.data.listing import FRACTION, Listing, list_folder
from distillery.data.photos import Photos
from distillery.data.rooted import Rooted


class Folder(Rooted, Photos):
    """Read JPEG, PNG, WebP, BMP, GIF and TIFF files; images that occur in training and test are counted and told."""

    class Config(Photos.Config):
        root: str
        """The folder; a relative path starts where the commands are run."""
        test: str | None = None
        """Name of the test folder in it, where it has several that might be it."""
        test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
        """Of each class, where there is no test folder; default 0.2."""

    config: Config

    def selection(self) -> dict[str, Any]:
        values = self.chosen()
        return values | {"test_fraction": FRACTION if values["test_fraction"] is None else values["test_fraction"]}

    def listing(self) -> Listing:
        return list_folder(self.root, self.config.test, self.config.test_fraction)
