"""What a data source is, and what it hands over: the canonical arrays and the facts about them. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from distillery.config import Config as BaseConfig

Bytes = NDArray[np.uint8]
BLOB = "images.blob"  # of a streamed source, beside the index to it


@dataclass(frozen=True, slots=True)
class Arrays:
    """A data set in canonical order.

    Attributes:
        tensors: train_images and test_images (N, H, W, C), train_labels and test_labels (N,), perhaps train_coarse and
            test_coarse (N,); all C-contiguous uint8, but labels of more than 256 classes uint16. Rows are sorted by
            label, then by a name of the image.
        class_names: name of every label.
        scale: pixel value of full brightness.
        mean, std: per channel, in units of `scale`; the constants that the images are normalised with.
        selection: the options that decided the content (a subset, a test fraction).
        group, group_names: what groups of people or things the samples are of, where the source says so ("sex"), and
            the name of every group; `tensors` then hold train_groups and test_groups (N,) too.
    """

    tensors: dict[str, NDArray[np.uint8] | NDArray[np.uint16]]
    class_names: list[str]
    scale: float
    mean: list[float]
    std: list[float]
    selection: dict[str, Any]
    group: str | None = None
    group_names: list[str] | None = None

    def facts(self) -> dict[str, Any]:
        """What the record of the data says beside their source and the hashes."""
        groups = {"groups": {"of": self.group, "names": self.group_names}} if self.group is not None else {}
        return groups | {
            "selection": self.selection,
            "counts": {"train": len(self.tensors["train_labels"]), "test": len(self.tensors["test_labels"])},
            "shape": list(self.tensors["train_images"].shape[1:]),
            "num_classes": len(self.class_names),
            "class_names": self.class_names,
            "scale": self.scale,
            "mean": self.mean,
            "std": self.std,
        }


def described(facts: dict[str, Any]) -> dict[str, Any]:
    """What data sets that are read back (`Dataset`, `PhotoSet`) take from their facts, by attribute."""
    return {
        "class_names": tuple(facts["class_names"]),
        "scale": facts["scale"],
        "mean": tuple(facts["mean"]),
        "std": tuple(facts["std"]),
        "facts": {
            key: facts[key] for key in ("source", "selection", "counts", "class_names", "groups") if key in facts
        },
    }


@dataclass(frozen=True, slots=True)
class Shape:
    """What networks must fit: images (channels, height, width), classes, and how many training images there are.

    `test_images` counts for the memory only; 0 where nobody has counted. `scale` is the pixel value of full brightness.
    """

    channels: int
    height: int
    width: int
    num_classes: int
    train_images: int
    test_images: int = 0
    scale: float = 255.0


class Source:
    """Base of every data source. A nested `Config` declares the keys of the study's `data:` block.

    Attributes:
        streamed: whether the data stage writes a blob of encoded images and an index to it (`write`), not arrays.
        grouped: whether its samples may belong to groups, between which `task: fairness` measures gaps.
    """

    streamed: ClassVar[bool] = False
    grouped: ClassVar[bool] = False

    class Config(BaseConfig):
        """Keys of the `data:` block besides `source`."""

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else type(self).Config()

    @property
    def mirrored(self) -> bool:
        """Whether a mirrored image is one of the same class, so that recipes may flip."""
        return True

    def selection(self) -> dict[str, Any]:
        """The settings that decide the content. Left out: which way it comes, if every way gives the same bytes."""
        return self.config.effective()

    def files(self) -> list[Path]:
        """Files and folders of the user's that `load` reads. Their content is part of what the data stage made."""
        return []

    def shape(self) -> Shape | None:
        """What the content will look like, where that is known without reading all of it.

        Raises DistilleryError if it can be seen already that `load` will fail.
        """
        return None

    def load(self) -> Arrays:
        """Read the content. Raises DistilleryError if it is missing, damaged or another one than expected."""
        raise TypeError(f"{type(self).__name__} defines no load()")

    def write(self, name: str, index: Path, blob: Path) -> dict[str, Any]:
        """Write the blob and the index of a streamed source of that name; return the facts, which the index holds too.

        Raises DistilleryError if the content is missing, damaged or another one than expected.
        """
        raise TypeError(f"{type(self).__name__} defines no write()")
