"""A blob and its index, read back: what `Dataset` is for arrays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillery.data.arrays import Bytes, described
from distillery.data.blob import Blob
from distillery.data.crops import centre_geometry
from distillery.data.cutting import INTERPOLATIONS, Cuts, cut
from distillery.data.dataset import validation_rows
from distillery.data.stream import Stream
from distillery.data.views import normalise
from distillery.errors import StaleInput
from distillery.records.io import below, load_arrays, read_metadata, sha256_array
from distillery.records.node_cache import nearby
from distillery.records.preprocessing import Preprocessing
from distillery.study.blocks import Recipe


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Images:
    """The index to the images of one split, in canonical order: columns of length N (`blob.Written.columns`)."""

    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    way: NDArray[np.uint8]
    sha256: Bytes
    names: Bytes
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset)

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the bytes of some images are and how they are decoded, (B, 3)."""
        return np.stack([self.offset[rows], self.length[rows], self.way[rows]], axis=1, dtype=np.int64)

    def name(self, offset: int) -> str | None:
        """The name of the image whose bytes begin there."""
        found = np.flatnonzero(self.offset == offset)
        return self.names.tobytes().decode().split("\0")[int(found[0])] if len(found) else None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PhotoSet:
    """Encoded images in a blob.

    Attributes:
        train, test: the whole splits, whatever is held out.
        rows, val_rows: (N,) int64 positions in `train` of the images that are trained on, and of those held out.
        size: height and width of what networks see.
        short_side: what the short side is resized to before the centre is tested.
        class_names, scale, mean, std, facts: as of `Dataset`.
        interpolation: by which images are resized, a row of `cutting.INTERPOLATIONS`.
        device: where batches go; the images stay in their file.
    """

    blob: Path
    blob_bytes: int
    train: Images
    test: Images
    rows: Tensor
    val_rows: Tensor
    size: tuple[int, int]
    short_side: int
    class_names: tuple[str, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    facts: dict[str, Any]
    interpolation: str = "bilinear"
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)
    _streams: dict[str, Stream] = dataclasses.field(default_factory=dict, init=False)  # by recipe

    @classmethod
    def load(cls, index: Path, blob: Path, verify: bool = False) -> PhotoSet:
        """Read the index; see by its size and the hashes of some images that the blob is the one described.

        With `verify` the hashes of all images and columns are compared. Where this node has a disk of its own
        (`DISTILLERY_SCRATCH`) the blob is copied there first.

        Raises:
            DistilleryError: if a file is missing or damaged.
            StaleInput: if the blob or the columns are not those that the facts describe.
        """
        columns = load_arrays(index)
        facts = json.loads(read_metadata(index).get("facts", "{}"))
        if "blob" not in facts:
            raise StaleInput(f"{index} is no index of a blob: run the data stage again")
        hashes = {k: sha256_array(v) for k, v in columns.items()} if verify else facts["sha256_of"]
        if hashes != facts["sha256_of"] or hashes.keys() != columns.keys():
            raise StaleInput(f"{index} does not hold the columns that it describes; run the data stage again")
        opened = Blob(blob, facts["blob"]["bytes"])
        splits = {}
        for split in ("train", "test"):
            part = below(columns, f"{split}_")
            part["labels"] = part["labels"].astype(np.int64)
            splits[split] = Images(**part)
            opened.verify(splits[split].offset, splits[split].length, splits[split].sha256, verify)
        opened.close()
        return cls(
            blob=nearby(Path(blob), facts["blob"]["sha256"]) or Path(blob),
            blob_bytes=facts["blob"]["bytes"],
            train=splits["train"],
            test=splits["test"],
            rows=torch.arange(len(splits["train"])),
            val_rows=torch.arange(0),
            size=(facts["shape"][0], facts["shape"][1]),
            short_side=facts["short_side"],
            interpolation=facts.get("interpolation", "bilinear"),
            **described(facts),
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return 3

    @property
    def train_labels(self) -> Tensor:
        """(N,) int64 labels of the images that are trained on, on the CPU."""
        return torch.from_numpy(self.train.labels)[self.rows]

    @property
    def test_labels(self) -> Tensor:
        """(N,) int64, on the CPU."""
        return torch.from_numpy(self.test.labels)

    def to(self, device: torch.device | str) -> PhotoSet:
        """Return the same images, whose batches go to `device`."""
        return dataclasses.replace(self, device=torch.device(device))

    def loader(self, recipe: Recipe) -> Stream:
        """What a run by this recipe reads its batches from; the same for all who ask, and with it its processes."""
        key = recipe.model_dump_json()
        if key not in self._streams:
            self._streams[key] = Stream(self, recipe)
        return self._streams[key]

    def normalise(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Map uint8 (B, 3, H, W) images to zero mean and unit deviation per channel."""
        return normalise(images, self.mean, self.std, self.scale, dtype)

    def example(self) -> Tensor:
        """The first test image as it is tested, (1, 3, H, W) uint8, on the device."""
        view = np.empty((1, 3, *self.size), dtype=np.uint8)
        blob = Blob(self.blob, self.blob_bytes)
        cut(blob, self.centres(self.test, np.zeros(1, dtype=np.int64))[0], view[0])
        blob.close()
        return torch.from_numpy(view).to(self.device)

    def plain(self, split: str, size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as they are tested, (B, 3, H, W) uint8, and labels of "train" (without what is held out) or "test"."""
        images, rows = {"train": (self.train, self.rows), "test": (self.test, torch.arange(len(self.test)))}[split]
        stream = self.loader(Recipe())
        parts = [part.numpy() for part in rows.split(size)]
        for i, part in enumerate(parts):
            ahead = (self.centres(images, later) for later in parts[i + 1 :])
            views = stream.views(self.centres(images, part), ahead)
            yield views.to(self.device), torch.from_numpy(images.labels[part]).to(self.device)
        stream.close()

    def evaluation_splits(self) -> dict[str, tuple[Images, Tensor]]:
        """Of "test" and, where one is held out, of "val": an index, and the positions in it of what is tested."""
        splits = {"test": (self.test, torch.arange(len(self.test)))}
        return splits | ({"val": (self.train, self.val_rows)} if len(self.val_rows) else {})

    def hold_out(self, fraction: float, seed: int = 0) -> PhotoSet:
        """Move `fraction` of each class from training to validation; the same images for the same seed."""
        if fraction == 0:
            return self
        held = validation_rows(self.train_labels, self.num_classes, fraction, seed)
        return dataclasses.replace(self, rows=self.rows[~held], val_rows=self.rows[held])

    def seen_by(self, own: Preprocessing) -> PhotoSet:
        """The same photographs as released weights were tested on: cut, resized and normalised in their own way."""
        size = self.size if own.size is None else (own.size, own.size)
        short = own.short_side or round(max(size) * self.short_side / max(self.size))
        return dataclasses.replace(
            self, size=size, short_side=short, interpolation=own.interpolation, mean=own.mean, std=own.std
        )

    def centres(self, images: Images, rows: NDArray[np.int64]) -> Cuts:
        """The evaluation's views of some images: the short side resized, the centre cut out."""
        heights, widths = images.height[rows], images.width[rows]
        resized, corner = centre_geometry(heights, widths, self.short_side, self.size)
        whole = np.stack([np.zeros_like(heights), np.zeros_like(heights), heights, widths], axis=1)
        last = np.broadcast_to(np.array([False, self._kernel]), (len(rows), 2))
        return np.concatenate([images.at(rows), whole, resized, corner, last], axis=1, dtype=np.int64)

    def crops(self, rows: NDArray[np.int64], boxes: NDArray[np.int32], flips: NDArray[np.bool_]) -> Cuts:
        """The training's views of some images: (B, 4) boxes resized to `size`, mirrored where `flips` says so."""
        size = np.broadcast_to(np.array(self.size), (len(rows), 2))
        corner = np.zeros((len(rows), 2), dtype=np.int64)
        last = np.stack([flips, np.full(len(rows), self._kernel)], axis=1)
        return np.concatenate([self.train.at(rows), boxes, size, corner, last], axis=1, dtype=np.int64)

    @property
    def _kernel(self) -> int:
        return INTERPOLATIONS.index(self.interpolation)

    def describe(self, offset: int, why: str) -> str:
        """The sentence about an image of the blob that cannot be decoded."""
        name = self.train.name(offset) or self.test.name(offset) or f"the image at byte {offset:,}"
        return f"{name} in {self.blob} cannot be decoded ({why}): run the data stage again"
