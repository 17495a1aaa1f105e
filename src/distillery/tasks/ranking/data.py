"""The canonical arrays of a recommendation data set as tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillery.records.io import StaleInput, load_tensors, read_metadata, sha256_array
from distillery.records.node_cache import nearby
from distillery.tasks.ranking.interactions import Interactions, Pairs
from distillery.tasks.ranking.popularity import popularity_halves


@dataclass(frozen=True, slots=True, eq=False)
class RankData:
    """A recommendation data set in memory.

    Attributes:
        pairs: training, validation and test pairs.
        half_of: (I,) 0 for the popular and 1 for the unpopular half of the training pairs, -1 for items without one.
        facts: what records and tables say about the data: source, selection, counts.
    """

    pairs: Interactions
    half_of: Tensor
    facts: dict[str, Any]

    @classmethod
    def load(cls, path: Path, sha256: str | None = None) -> RankData:
        """Read the canonical arrays, or this node's copy of the file of that `sha256`.

        Raises DistilleryError if the file is missing or damaged, StaleInput if the arrays are not those of its facts.
        """
        path = (nearby(Path(path), sha256) if sha256 else None) or Path(path)
        tensors, facts = load_tensors(path), json.loads(read_metadata(path).get("facts", "{}"))
        if not facts or {k: sha256_array(t) for k, t in tensors.items()} != facts["sha256_of"]:
            raise StaleInput(f"{path} does not hold the arrays that it describes; run the data stage again")
        users, items = facts["counts"]["users"], facts["counts"]["items"]
        train, val, test = (
            Pairs.of(tensors[f"{split}_user"].long(), tensors[f"{split}_item"].long(), users)
            for split in ("train", "val", "test")
        )
        half_of = popularity_halves(train.item, items)
        kept = {key: facts[key] for key in ("source", "selection", "counts")}
        return cls(Interactions(users, items, train, val, test), half_of, kept)

    def to(self, device: torch.device | str) -> RankData:
        return RankData(self.pairs.to(device), self.half_of.to(device), self.facts)
