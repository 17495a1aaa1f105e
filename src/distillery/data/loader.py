"""How training data reach the step: what a loader is, whatever the task and wherever its samples lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

# (samples, their views, epoch) -> per teacher the cached outputs (N, columns); [] if none are cached.
Cached = Callable[[Tensor, Tensor, int], list[Tensor]]


@dataclass(frozen=True, slots=True)
class Samples:
    """One batch on its way into the networks.

    Attributes:
        inputs: what networks take, on the device: (B, C, H, W) normalised images for every task of images.
        targets: what the loss compares with: (B,) int64 classes, or whatever the task's objectives read.
        index: (B,) int64, positions in the training set.
        cached: per teacher, the cached outputs of just these views, (B, columns); empty with live teachers.
        strong: a second, strongly augmented view, for methods that need one.
    """

    inputs: Any
    targets: Any
    index: Tensor
    cached: list[Tensor] = field(default_factory=list)
    strong: Any | None = None


class Epoch(Protocol):
    """One epoch, laid out in the order of training."""

    def batch(self, rows: slice | Tensor) -> Samples:
        """Give these rows of the epoch. The fit loop asks for one slice after the other, after a resume from within."""

    def tensors(self) -> list[Tensor]:
        """All that `batch` reads and that differs between epochs: a captured graph is kept, and these are refilled."""


class Split(Protocol):
    """Samples that are tested on, always the same ones in the same order."""

    count: int

    def batches(self, size: int, rank: int = 0, ranks: int = 1) -> Iterator[tuple[Any, Any]]:
        """Give (inputs, targets) of every batch whose turn is that of process `rank` of `ranks`."""


class Loader(Protocol):
    """Training and test samples of one run, on its device, in its precision.

    Attributes:
        count: training samples, each of which comes once in an epoch.
        static: whether batches may be read inside a captured CUDA graph.
    """

    device: torch.device
    count: int
    static: bool

    def epoch(self, seed: int, epoch: int, strong: bool = False, cached: Cached | None = None) -> Epoch:
        """Lay out one epoch, a pure function of (seed, epoch): an order, and one view of every sample.

        Nothing here waits for the device, which may have an epoch's steps to do still.
        """

    def splits(self) -> Mapping[str, Split]:
        """What is tested on: "test" and, where one is held out, "val"."""
