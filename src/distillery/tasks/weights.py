"""A network of a task with weights from a file, which may hold several students."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from distillery.errors import DistilleryError
from distillery.models.base import Network
from distillery.models.filling import fill
from distillery.records.header import Header
from distillery.records.io import load_tensors

N = TypeVar("N", bound=Network)


def filled(network: N, architecture: str, path: Path) -> N:
    """The network with the weights of a file, in evaluation mode. Raises DistilleryError if they do not fit."""
    fill(network, load_tensors(path), str(path), f"does not hold the weights of a {architecture}")
    return network.eval()


def chosen(header: Header, seed: int | None, path: Path) -> int:
    """The seed of the student that is meant. Raises DistilleryError if there are several, or not this one."""
    known = ", ".join(map(str, header.seeds))
    if seed is None and len(header.seeds) > 1:
        raise DistilleryError(f"{path} holds the students of the seeds {known}: name one")
    seed = header.seeds[0] if seed is None else seed
    if seed not in header.seeds:
        raise DistilleryError(f"{path} has no student of seed {seed}: it has {known}")
    return seed
