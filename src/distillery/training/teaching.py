"""What the fit loop asks of teachers; `distillery.teachers.source` has the kinds that there are."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from distillery.models.base import Outputs


class TeacherSource(Protocol):
    """What the fit loop asks of teachers."""

    def rows(self, index: Tensor, view: Tensor, epoch: int, seed: int = 0) -> list[Tensor]:
        """Cached outputs of (sample, view) pairs of a run's epoch, (N, columns) per teacher; [] if none are cached."""

    def teach(self, inputs: Any, rows: list[Tensor]) -> tuple[Outputs, ...]:
        """Outputs of every teacher for one batch, from the cached rows where there are any, else from the inputs."""
