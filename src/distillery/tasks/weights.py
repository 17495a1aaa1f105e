"""A network of a task with weights from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from distillery.errors import DistilleryError
from distillery.models.base import Network
from distillery.records.io import load_tensors

N = TypeVar("N", bound=Network)


def filled(network: N, architecture: str, path: Path) -> N:
    """The network with the weights of a file, in evaluation mode. Raises DistilleryError if they do not fit."""
    try:
        network.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DistilleryError(f"{path} does not hold the weights of a {architecture}: {reason}") from None
    return network.eval()
