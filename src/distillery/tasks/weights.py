"""A network of a task with weights from a file, which may hold several students."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.models.base import Network
from distillery.models.official import unsound
from distillery.records.header import Header
from distillery.records.io import load_tensors

N = TypeVar("N", bound=Network)


def filled(network: N, architecture: str, path: Path) -> N:
    """The network with the weights of a file, in evaluation mode. Raises DistilleryError if they do not fit."""
    fill(network, load_tensors(path), f"{path} does not hold the weights of a {architecture}")
    return network.eval()


def fill(network: nn.Module, weights: Mapping[str, Tensor], complaint: str) -> None:
    """Give a network these weights. Raises DistilleryError, the complaint and the reason, if they do not fit."""
    if fault := unsound(weights):
        raise DistilleryError(f"{complaint}: {fault}")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DistilleryError(f"{complaint}: {reason}") from None


def chosen(header: Header, seed: int | None, path: Path) -> int:
    """The seed of the student that is meant. Raises DistilleryError if there are several, or not this one."""
    known = ", ".join(map(str, header.seeds))
    if seed is None and len(header.seeds) > 1:
        raise DistilleryError(f"{path} holds the students of the seeds {known}: name one")
    seed = header.seeds[0] if seed is None else seed
    if seed not in header.seeds:
        raise DistilleryError(f"{path} has no student of seed {seed}: it has {known}")
    return seed
