"""Teachers of streamed images, asked once for every view of a run and then replayed to all methods.

The files of a teacher's replay table are made as they are asked for: by whichever student comes to an epoch first,
while the others wait for it. Nothing but time is lost with them, so they are no outputs of a job and may be deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from distillery.data.loader import Loader
from distillery.models.base import Network, Outputs
from distillery.records.io import lock, sha256_json
from distillery.study.blocks import Recipe
from distillery.teachers.replay import Plan, ReplayTable, ReplayTeachers, build, file_of

# What of a recipe decides a view or the last bit of a teacher's output for it.
DECIDES = ("augmentation", "batch_size", "precision", "channels_last", "validation", "label_smoothing")
MOST = 16  # runs whose files stay open; a study has at most as many students `at_once`


def decisive(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe the rows of a table depend on."""
    return recipe.model_dump(mode="json", include=set(DECIDES))


class Replayed:
    """A `TeacherSource` over replay tables that are filled on demand.

    Args:
        networks: the teachers.
        folders, plans: of their tables; a run's seed is added to either, unless all runs see the same views
            (`augmentation.view_seed`) and nothing mixes images, which depends on their order. With one table for all
            seeds a teacher's outputs are those of other batches: equal up to rounding.
        loader: gives the loader that trains, or one like it.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        folders: Sequence[Path],
        plans: Sequence[Plan],
        loader: Callable[[], Loader],
        recipe: Recipe,
    ) -> None:
        self.networks, self.folders, self.plans = networks, folders, plans
        self.loader, self.recipe = loader, recipe
        mixes = any(part.mixes for part in recipe.augmentations())
        self.shared = None if mixes else recipe.augmentation.view_seed
        self.tables: dict[int, list[ReplayTable]] = {}
        self.current = ReplayTeachers([])  # of the run that asked last

    def rows(self, index: Tensor, view: Tensor, epoch: int, seed: int = 0) -> list[Tensor]:
        if seed not in self.tables:
            self.tables[seed] = [ReplayTable(*self._of_run(i, seed)) for i in range(len(self.networks))]
            if len(self.tables) > MOST:
                del self.tables[next(iter(self.tables))]
        self.current = ReplayTeachers(self.tables[seed])
        for network, table in zip(self.networks, self.current.tables, strict=True):
            if table.epoch != epoch:
                self._build(network, table, epoch, seed)
        return self.current.rows(index, view, epoch)

    def teach(self, inputs: Any, rows: list[Tensor]) -> tuple[Outputs, ...]:
        return self.current.teach(inputs, rows)

    def _of_run(self, teacher: int, seed: int) -> tuple[Path, Plan]:
        plan = self.plans[teacher]
        key = sha256_json([plan.key, seed if self.shared is None else ["shared", self.shared]])
        return self.folders[teacher] / key[:12], replace(plan, key=key)

    def _build(self, network: Network, table: ReplayTable, epoch: int, seed: int) -> None:
        with lock(file_of(table.folder, epoch), wait=True):
            file = file_of(table.folder, epoch)
            if not (file.exists() and file.with_suffix(".json").exists()):  # either may have been deleted
                build(network, self.loader(), seed, epoch, self.recipe, table.plan, table.folder)
