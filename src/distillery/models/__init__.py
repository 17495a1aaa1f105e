"""The networks of the CIFAR benchmark, all with one interface: `build(name, ...)(images) -> Outputs`.

Importing this package does not import torch: `names` serves the validation of a study, which takes milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from distillery.models.names import NAMES, lookup

if TYPE_CHECKING:
    from distillery.models.base import Network

__all__ = ["NAMES", "build"]


def build(name: str, num_classes: int, in_channels: int = 3) -> Network:
    """Build a freshly initialised network.

    Args:
        name: one of `NAMES`; ValueError otherwise.
        num_classes: C, the width of the logits.
        in_channels: channels of the images, 1 for grey.
    """
    module, kind, options = lookup(name)
    family = getattr(import_module(f"distillery.models.{module}"), kind)
    network: Network = family(num_classes=num_classes, in_channels=in_channels, **options)
    return network
