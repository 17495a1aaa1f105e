"""How a training step gets the teachers' outputs: from view tables, or from the live networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distillery.models.base import Network, Outputs, with_cams
from distillery.study.blocks import Recipe
from distillery.teachers.view_table import ViewTable
from distillery.training.device import autocast


class TableTeachers:
    """Teachers read from their view tables. Only the epoch's own views leave the table: 20 MB of 3 GB for CIFAR-100."""

    def __init__(self, tables: Sequence[ViewTable]) -> None:
        self.tables = tables

    def rows(self, index: Tensor, view: Tensor, epoch: int, seed: int = 0) -> list[Tensor]:
        return [table.rows(index, view) for table in self.tables]

    def teach(self, images: Tensor, rows: list[Tensor]) -> tuple[Outputs, ...]:
        return tuple(table.outputs(row.to(images.dtype)) for table, row in zip(self.tables, rows, strict=True))


class LiveTeachers:
    """Teachers evaluated on every batch: no autograd, evaluation mode, the recipe's precision.

    Args:
        needs: what the objective needs; of it "preacts" and "cams" are made only if they are in it.
    """

    def __init__(self, networks: Sequence[Network], recipe: Recipe, needs: frozenset[str] = frozenset()) -> None:
        self.networks = [network.eval().requires_grad_(False) for network in networks]
        self.recipe, self.needs = recipe, needs

    def rows(self, index: Tensor, view: Tensor, epoch: int, seed: int = 0) -> list[Tensor]:
        return []

    @torch.no_grad()
    def teach(self, images: Tensor, rows: list[Tensor]) -> tuple[Outputs, ...]:
        with autocast(self.recipe, images.device):
            outputs = [network(images, preacts="preacts" in self.needs) for network in self.networks]
            if "cams" in self.needs:
                outputs = [with_cams(network, of) for network, of in zip(self.networks, outputs, strict=True)]
        return tuple(outputs)
