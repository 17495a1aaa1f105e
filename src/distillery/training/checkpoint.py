"""Exact resume: everything that a run's future depends on, in one atomically replaced file."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillery import settings
from distillery.records.io import DistilleryError, load_tensors, read_metadata, save_tensors
from distillery.training.average import Average
from distillery.training.optimizer import trained


@dataclass
class State:
    """Where a run stands: epochs finished, steps into the running epoch, and the history so far."""

    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class Checkpoint:
    """The resumable state of one run.

    `key` is the hash of all that determines the run (parameters, inputs, code): a checkpoint with another key is not
    resumed but thrown away. Written every DISTILLERY_CHECKPOINT_SECONDS (60; 0: after every step) and on preemption.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.seconds, self.saved = settings.checkpoint_seconds(), time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is `seconds` since it was written, or since this object was made."""
        return time.monotonic() - self.saved >= self.seconds

    def save(self, state: State, tensors: dict[str, Tensor]) -> None:
        random = {"rng.cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            random["rng.cuda"] = torch.cuda.get_rng_state()
        facts = {"key": self.key, "state": json.dumps(vars(state))}
        save_tensors(self.path, {**tensors, **random}, facts)
        self.saved = time.monotonic()

    def load(self) -> tuple[State, dict[str, Tensor]] | None:
        """Return state and tensors if there is a readable checkpoint of this very run."""
        if not self.path.exists():
            return None
        try:
            facts = read_metadata(self.path)
            tensors = load_tensors(self.path)
        except DistilleryError:
            return None  # half-written by a full disk, say: the run starts over, nothing is lost but time
        if facts.get("key") != self.key:
            return None
        return State(**json.loads(facts["state"])), tensors

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


def pack(
    student: nn.Module, objective: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None = None
) -> dict[str, Tensor]:
    """Collect weights, buffers, the optimiser's state and the average under flat names. The tensors are the live ones.

    The rate and the decay of the average are functions of the step, and need no place here.
    """
    tensors = {f"student.{k}": v for k, v in student.state_dict().items()}
    tensors |= {f"objective.{k}": v for k, v in objective.state_dict().items()}
    for i, p in enumerate(trained(optimizer)):
        tensors |= {f"optimizer.{i}.{k}": v for k, v in optimizer.state[p].items()}
    return tensors | ({f"average.{k}": v for k, v in average.state_dict().items()} if average else {})


@torch.no_grad()
def unpack(tensors: dict[str, Tensor], *parts: Any) -> None:
    """Copy a packed state back in place (in place, so that a captured graph sees it)."""
    for name, target in pack(*parts).items():
        target.copy_(tensors[name])
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
