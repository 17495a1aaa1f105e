"""What a task gives to the fit loop and to the stages that train: data, networks, objectives, tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.data.loader import Loader
from distillery.study.blocks import Method, Recipe
from distillery.task import Task
from distillery.training.parallel import ALONE, Ranks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from distillery.models.base import Network
    from distillery.records.header import Header
    from distillery.training.teaching import TeacherSource
    from distillery.training.trainee import Trainee


class Training:
    """Base of every task's part "training". `data` is whatever `load` returned.

    `task` is the study's, with its keys; None where there is no study, for a task that has none.
    """

    def __init__(self, task: Task | None = None) -> None:
        self.task = task

    # --- asked by the fit loop

    def seen(self, prediction: Any, targets: Any) -> dict[str, Tensor]:
        """Count one training batch, on its device and without waiting for it: sums over its samples, by name."""
        return {}

    def scores(self, sums: Mapping[str, float], count: int) -> dict[str, float]:
        """Turn sums over `count` samples, of `seen` or of a test, into what histories hold."""
        return {name: value / count for name, value in sums.items()}

    def counted(self, prediction: Any, targets: Any) -> dict[str, Tensor]:
        """Count one test batch: sums over its samples, by name (for a `test` that is made of sums)."""
        raise TypeError(f"{type(self).__name__} defines no counted()")

    def test(self, trainee: Trainee, loader: Loader, recipe: Recipe, ranks: Ranks = ALONE) -> dict[str, float]:
        """Test on every split: scores by "split_name". Every process of `ranks` makes the same call."""
        raise TypeError(f"{type(self).__name__} defines no test()")

    # --- asked by the stages

    def load(self, path: Path, sha256: str, recipe: Recipe, device: torch.device) -> Any:
        """Read the canonical arrays, or this node's copy of the file of that hash, onto the device."""
        raise TypeError(f"{type(self).__name__} defines no load()")

    def hidden(self, data: Any, labelled: float, unlabelled: bool) -> Any:
        """Hide the labels of all but a share of the training samples; leave these out unless `unlabelled` is set."""
        raise TypeError(f"{type(self).__name__} defines no hidden()")

    def loader(self, data: Any, recipe: Recipe) -> Loader:
        """What a run by this recipe reads its batches from."""
        raise TypeError(f"{type(self).__name__} defines no loader()")

    def network(self, architecture: str, data: Any) -> Network:
        """Build a network for the data."""
        raise TypeError(f"{type(self).__name__} defines no network()")

    def trained(self, architecture: str, data: Any, path: Path) -> Network:
        """Build a network and fill it from a file of weights. Raises DistilleryError if they do not fit."""
        raise TypeError(f"{type(self).__name__} defines no trained()")

    def assemble(self, student: str, method: Method, data: Any, teachers: list[Network], seed: int) -> Trainee:
        """Build the student and the objective of one run. The student's first weights depend on the seed alone."""
        raise TypeError(f"{type(self).__name__} defines no assemble()")

    def teaching(
        self, job: Any, described: Mapping[str, Any], networks: list[Network], recipe: Recipe, data: Any
    ) -> tuple[TeacherSource | None, str]:
        """Choose where a run's teacher outputs come from; say which in words, as the record does.

        `job` is the job of the students, `described` says of every teacher what the pair was made with.
        """
        raise TypeError(f"{type(self).__name__} defines no teaching()")

    def header(self, data: Any, **facts: Any) -> Header:
        """What weights that were trained on the data say about themselves."""
        raise TypeError(f"{type(self).__name__} defines no header()")

    def beside(self, networks: list[Network], data: Any) -> dict[str, Tensor]:
        """What an objective that takes part in the prediction is rebuilt from, kept with the students' weights."""
        return {}
