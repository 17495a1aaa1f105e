"""Images with boxes in a blob and its index, read back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillery.data.blob import UPRIGHT, Blob
from distillery.data.pictures import Unreadable, quietly, whole
from distillery.data.views import seed_for
from distillery.errors import DistilleryError, StaleInput
from distillery.records.io import below, load_arrays, read_metadata, sha256_array
from distillery.records.node_cache import nearby
from distillery.tasks.detection.source import Cropped
from distillery.tasks.detection.twins import Twins


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Split:
    """The images of one split in canonical order, and what is in them: the columns of `Boxed.write`."""

    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["offset"])

    def size(self, row: int) -> tuple[int, int]:
        """Height and width of an image."""
        return int(self.columns["height"][row]), int(self.columns["width"][row])

    def sizes(self) -> NDArray[np.int64]:
        """(N, 2) heights and widths."""
        return np.stack([self.columns["height"], self.columns["width"]], axis=1).astype(np.int64)

    def of(self, row: int) -> slice:
        """Where an image's objects are."""
        return slice(int(self.columns["starts"][row]), int(self.columns["starts"][row + 1]))

    def objects(self, row: int) -> tuple[Tensor, Tensor]:
        """What an image is trained on, crowds left out: (n,) classes and (n, 4) float32 corners in pixels."""
        of = self.of(row)
        kept = self.columns["crowd"][of] == 0
        boxes = self.columns["boxes"][of][kept]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        return torch.from_numpy(self.columns["labels"][of][kept].astype(np.int64)), torch.from_numpy(corners).float()

    def most(self) -> int:
        """Objects of the fullest image, at least 1."""
        return max(1, int(np.diff(self.columns["starts"]).max(initial=0)))

    def names(self) -> list[str]:
        return self.columns["names"].tobytes().decode().split("\0")

    def rows(self, rows: NDArray[np.int64]) -> Split:
        """Some of the images."""
        starts, parts = [0], []
        for row in rows:
            of = self.of(int(row))
            parts.append(np.arange(of.start, of.stop))
            starts.append(starts[-1] + of.stop - of.start)
        objects = np.concatenate(parts) if parts else np.arange(0)
        of_objects = ("boxes", "labels", "crowd", "area")
        names = self.names()
        columns = {
            k: v[objects] if k in of_objects else v[rows]
            for k, v in self.columns.items()
            if k not in ("starts", "names")
        }
        text = "\0".join(names[int(row)] for row in rows).encode()
        return Split(columns | {"starts": np.array(starts), "names": np.frombuffer(text, dtype=np.uint8)})


@dataclass(slots=True, eq=False, repr=False)
class BoxData:
    """Encoded images with boxes.

    Attributes:
        train, val, test: what is trained on, held out, tested on; `val` may be empty.
        rows: (N,) positions of what is trained on among the data set's training images.
        class_names: of every class number; "" where there is none.
        short_side, max_side, scales, crop: sizes of views, see `source.Boxed.Config`.
        facts: source, selection, counts, class names.
        device: where batches go.
        twins: adversarial twins of the training images; given by whoever knows the teacher that they deceive.
    """

    blob: Path
    train: Split
    val: Split
    test: Split
    rows: NDArray[np.int64]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    short_side: int
    max_side: int
    scales: tuple[int, ...]
    crop: Cropped | None
    facts: dict[str, Any]
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    twins: Twins | None = None

    @classmethod
    def load(cls, index: Path) -> BoxData:
        """Read the index; see by its size and the hashes of some images that the blob beside it is the one described.

        Raises DistilleryError if a file is missing or damaged, StaleInput if they do not belong together.
        """
        columns, path = load_arrays(index), index.with_name("images.blob")
        facts = json.loads(read_metadata(index).get("facts", "{}"))
        if "blob" not in facts or {k: sha256_array(v) for k, v in columns.items()} != facts["sha256_of"]:
            raise StaleInput(f"{index} does not hold the columns that it describes: run the data stage again")
        blob, splits = Blob(path, facts["blob"]["bytes"]), {}
        for split in ("train", "test"):
            part = below(columns, f"{split}_")
            blob.verify(part["offset"], part["length"], part["sha256"])
            splits[split] = Split(part)
        blob.close()
        chosen = facts["selection"]
        none = np.arange(0)
        return cls(
            blob=nearby(path, facts["blob"]["sha256"]) or path,
            train=splits["train"],
            val=splits["train"].rows(none),
            test=splits["test"],
            rows=np.arange(len(splits["train"])),
            class_names=tuple(facts["class_names"]),
            mean=tuple(facts["mean"]),
            std=tuple(facts["std"]),
            short_side=chosen["short_side"],
            max_side=chosen["max_side"],
            scales=tuple(chosen["scales"]) or (chosen["short_side"],),
            crop=None if chosen["crop"] is None else Cropped.model_validate_json(json.dumps(chosen["crop"])),
            facts={key: facts[key] for key in ("source", "selection", "counts", "class_names")},
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def to(self, device: torch.device) -> BoxData:
        """The same images, whose batches go to `device`."""
        return dataclasses.replace(self, device=device)

    def hold_out(self, fraction: float) -> BoxData:
        """Move a share of the training images to validation, the same ones always.

        Raises DistilleryError if no object is in them.
        """
        if not fraction:
            return self
        generator = torch.Generator().manual_seed(seed_for("detection", "validation"))
        order = torch.randperm(len(self.train), generator=generator).numpy()
        held = np.sort(order[: round(len(order) * fraction)])
        kept = np.setdiff1d(np.arange(len(self.train)), held)
        train, val = self.train.rows(kept), self.train.rows(held)
        for part, fault in ((val, "in which is no object: raise it"), (train, "and no object is left: lower it")):
            if part.columns["crowd"].all():
                raise DistilleryError(
                    f"recipe.validation {fraction:g} holds out {len(val)} of {len(self.train)} images, {fault}, or set "
                    "it to 0"
                )
        return dataclasses.replace(self, train=train, val=val, rows=self.rows[kept])

    def image(self, blob: Blob, split: Split, row: int) -> Tensor:
        """Decode an image, (3, H, W) uint8 on the CPU. Raises StaleInput if it cannot be decoded."""
        c = split.columns
        try:
            with quietly():
                content = blob.read(int(c["offset"][row]), int(c["length"][row]))
                picture = whole(content, upright=int(c["way"][row]) == UPRIGHT)
        except Unreadable as error:
            name = split.names()[row]
            raise StaleInput(f"{name} in {self.blob} cannot be decoded ({error}): run the data stage again") from None
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
