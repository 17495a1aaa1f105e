"""Rows on their way to the step, with their sets of labels."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from distillery.data.loader import Cached, Samples
from distillery.data.resident import Resident, ResidentEpoch
from distillery.study.blocks import Recipe
from distillery.tasks.retrieval.data import SetData


class SetLoader(Resident):
    """A `Loader` whose targets are (B, L) flags in the type of the network's outputs."""

    def __init__(self, data: SetData, recipe: Recipe) -> None:
        super().__init__(data, recipe)
        self.sets: Tensor = data.train_sets

    def epoch(self, seed: int, epoch: int, strong: bool = False, cached: Cached | None = None) -> SetEpoch:
        usual = super().epoch(seed, epoch, strong, cached)
        return SetEpoch(self, *(getattr(usual, field.name) for field in dataclasses.fields(usual)[1:]))


class SetEpoch(ResidentEpoch):
    """One epoch laid out on the device."""

    def batch(self, rows: slice | Tensor) -> Samples:
        samples, loader = super().batch(rows), self.loader
        assert isinstance(loader, SetLoader)
        return dataclasses.replace(samples, targets=loader.sets[samples.index].to(loader.dtype))
