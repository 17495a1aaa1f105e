"""The canonical arrays as tensors, ready to be put on a device."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillery.data.arrays import described
from distillery.data.resident import Resident
from distillery.data.views import normalise, seed_for
from distillery.records.io import DistilleryError, StaleInput, load_tensors, read_metadata, sha256_array
from distillery.records.node_cache import nearby
from distillery.study.blocks import Recipe

UNLABELLED = -1  # in place of a label that training must not see


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Dataset:
    """A data set in memory.

    Attributes:
        train_images, test_images: (N, C, H, W) uint8.
        train_labels, test_labels: (N,) int64.
        class_names: name of every label.
        scale: pixel value of full brightness.
        mean, std: per channel, in units of `scale`.
        rows: (N,) int64 positions of the training images in the canonical arrays, and so in a view table: all of them
            unless a validation split is held out. Always on the CPU, where tables are looked up.
        val_images, val_labels: the held-out split, if there is one.
        facts: what the tables say about the data: source, selection, counts, class names; where there are groups,
            what they differ in and their names.
        test_groups: (N,) int64 group of every test image, where the source says so.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rows: Tensor
    val_images: Tensor | None = None
    val_labels: Tensor | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    test_groups: Tensor | None = None

    @classmethod
    def load(cls, path: Path, verify: bool = False, sha256: str | None = None) -> Dataset:
        """Read the canonical arrays, or this node's copy of the file of that `sha256`.

        With `verify` every array is hashed again.

        Raises:
            DistilleryError: if the file is missing or damaged.
            StaleInput: if the arrays are not those that the file's facts describe.
        """
        path = (nearby(Path(path), sha256) if sha256 else None) or Path(path)
        tensors = load_tensors(path)
        facts = json.loads(read_metadata(path).get("facts", "{}"))
        hashes = {k: sha256_array(t) for k, t in tensors.items()} if verify else facts.get("sha256_of")
        if not facts or hashes != facts["sha256_of"]:
            raise StaleInput(f"{path} does not hold the arrays that it describes; run the data stage again")
        images = {s: tensors[f"{s}_images"].permute(0, 3, 1, 2).contiguous() for s in ("train", "test")}
        return cls(
            train_images=images["train"],
            train_labels=tensors["train_labels"].long(),
            test_images=images["test"],
            test_labels=tensors["test_labels"].long(),
            rows=torch.arange(len(tensors["train_labels"])),
            test_groups=tensors["test_groups"].long() if "test_groups" in tensors else None,
            **described(facts),
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.train_images.shape[1]

    def to(self, device: torch.device | str) -> Dataset:
        """Return the data set with every tensor but `rows` on `device`."""
        tensors: dict[str, Any] = {k: v.to(device) for k in _FIELDS if isinstance(v := getattr(self, k), Tensor)}
        return dataclasses.replace(self, **tensors | {"rows": self.rows})

    def normalise(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Map uint8 (B, C, H, W) images to zero mean and unit deviation per channel."""
        return normalise(images, self.mean, self.std, self.scale, dtype)

    def example(self) -> Tensor:
        """The first test image as it is tested, (1, C, H, W) uint8, on the device."""
        return self.test_images[:1]

    def plain(self, split: str, size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """Images without augmentation, (B, C, H, W) uint8, and labels of "train" or "test", in order."""
        images, labels = {
            "train": (self.train_images, self.train_labels),
            "test": (self.test_images, self.test_labels),
        }[split]
        return zip(images.split(size), labels.split(size), strict=True)

    def loader(self, recipe: Recipe) -> Resident:
        """What a run by this recipe reads its batches from."""
        return Resident(self, recipe)

    def evaluation_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return images and labels of "test" and, where one is held out, of "val"."""
        splits = {"test": (self.test_images, self.test_labels)}
        if self.val_images is not None and self.val_labels is not None:
            splits["val"] = (self.val_images, self.val_labels)
        return splits

    def hold_out(self, fraction: float, seed: int = 0) -> Dataset:
        """Move `fraction` of each class from the training to the validation images; the same ones for the same seed."""
        if fraction == 0:
            return self
        keep = ~validation_rows(self.train_labels.cpu(), self.num_classes, fraction, seed)
        rows, keep = self.rows[keep], keep.to(self.train_labels.device)
        return dataclasses.replace(
            self,
            train_images=self.train_images[keep],
            train_labels=self.train_labels[keep],
            rows=rows,
            val_images=self.train_images[~keep],
            val_labels=self.train_labels[~keep],
        )

    def hide_labels(self, labelled: float, leave_out: bool, seed: int = 0) -> Dataset:
        """Keep the label of a share of each class's training images, of one at least, the same for the same seed.

        The label of the others is -1, or with `leave_out` they go.
        """
        labels = self.train_labels.cpu()
        keep = held_out(labels, self.num_classes, labelled, seed, "labelled")
        for label in set(range(self.num_classes)) - set(labels[keep].tolist()):
            keep[(labels == label).nonzero()[:1, 0]] = True
        shown = keep.to(self.train_labels.device)
        if not leave_out:
            return dataclasses.replace(self, train_labels=torch.where(shown, self.train_labels, UNLABELLED))
        return dataclasses.replace(
            self, train_images=self.train_images[shown], train_labels=self.train_labels[shown], rows=self.rows[keep]
        )


def held_out(labels: Tensor, classes: int, fraction: float, seed: int, purpose: str = "validation") -> Tensor:
    """Mark `fraction` of each class, (N,) bool, chosen at random by the seed alone; `labels` are on the CPU."""
    generator = torch.Generator().manual_seed(seed_for(seed, purpose))
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(classes):
        members = (labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator)
        held[members[order[: round(len(members) * fraction)]]] = True
    return held


def validation_rows(labels: Tensor, classes: int, fraction: float, seed: int) -> Tensor:
    """Mark what is held out, (N,) bool. Raises DistilleryError if that is nothing, or all that there is of a class."""
    held = held_out(labels, classes, fraction, seed)
    of_class, left = labels.bincount(minlength=classes), labels[~held].bincount(minlength=classes)
    if not held.any():
        raise DistilleryError(
            f"recipe.validation {fraction:g} holds out no image: it is a share of each class, of which the largest has "
            f"{int(of_class.max())}; raise it, or set it to 0"
        )
    if gone := ((of_class > 0) & (left == 0)).nonzero().flatten().tolist():
        raise DistilleryError(
            f"recipe.validation {fraction:g} holds out all {int(of_class[gone[0]])} image(s) of class {gone[0]}: "
            "lower it"
        )
    return held


_FIELDS = tuple(field.name for field in dataclasses.fields(Dataset))
