"""The canonical arrays of rows with sets of labels, as tensors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.records.io import StaleInput, load_tensors
from distillery.records.node_cache import nearby


@dataclass(frozen=True, eq=False, repr=False)
class SetData(Dataset):
    """A `Dataset` whose rows have sets of labels.

    Attributes:
        train_sets, test_sets: (N, L) uint8 flags. `train_labels` and `test_labels` are the first label of each row.
    """

    train_sets: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    test_sets: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))

    @classmethod
    def load(cls, path: Path, verify: bool = False, sha256: str | None = None) -> SetData:
        """As `Dataset.load`. Raises StaleInput too if the arrays hold no sets."""
        data = super().load(path, verify, sha256)
        assert isinstance(data, SetData)
        tensors = load_tensors((nearby(Path(path), sha256) if sha256 else None) or Path(path))
        if "train_sets" not in tensors:
            raise StaleInput(f"{path} holds no sets of labels; run the data stage again")
        return dataclasses.replace(data, train_sets=tensors["train_sets"], test_sets=tensors["test_sets"])

    def to(self, device: torch.device | str) -> SetData:
        moved = super().to(device)
        assert isinstance(moved, SetData)
        return dataclasses.replace(moved, train_sets=self.train_sets.to(device), test_sets=self.test_sets.to(device))

    def evaluation_splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Rows and sets of "test"."""
        return {"test": (self.test_images, self.test_sets)}
