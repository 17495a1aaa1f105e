"""Reading the weights of a trained network."""

from __future__ import annotations

from pathlib import Path

from distillery import models
from distillery.models.base import Network
from distillery.models.filling import fill
from distillery.models.seeing import see
from distillery.records.header import Header
from distillery.records.io import load_tensors


def load_network(architecture: str, num_classes: int, in_channels: int, path: Path) -> Network:
    """Build a network, fill it from a safetensors file, and let it see what the file says that it sees.

    Raises DistilleryError if the weights do not fit.
    """
    network = models.build(architecture, num_classes, in_channels)
    fill(network, load_tensors(path), str(path), f"does not hold the weights of a {architecture}")
    header = Header.read(path)
    return see(network, header.preprocessing.get(header.teacher or ""), header.mean, header.std).eval()
