"""Stochastic depth (Huang et al., ECCV 2016), called drop path since FractalNet: `recipe.drop_path` sets its rate.

In training a residual branch is dropped for a whole image, and scaled up for the others. Which images lose which branch
comes from torch's global generator, as in timm, which the fit loop seeds by (seed, epoch).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distillery.errors import DistilleryError
from distillery.models.base import Network

# Classes that drop paths, by name, and their attribute for the rate: timm's and ours, and torchvision's.
RATES = {"DropPath": "drop_prob", "StochasticDepth": "p"}


def set_drop_path(network: Network, rate: float) -> None:
    """Set the highest rate of a network, 0 <= rate < 1.

    How the rates of the blocks rise to it is the network's own affair: it may define `spread_drop_path(rate)`. One of
    timm's gets what timm gives it for this `drop_path_rate`. One that has rates already, as torchvision's do, keeps
    their proportions. Any other one's rise linearly with the depth, from 0 in the first block: blocks are the modules
    that a `DropPath` belongs to.

    Raises DistilleryError if it has no drop path.
    """
    spreading: list[Any] = [module for module in network.modules() if hasattr(module, "spread_drop_path")]
    for module in spreading:
        module.spread_drop_path(rate)
    found = [(path, module) for path, module in network.named_modules() if type(module).__name__ in RATES]
    if not found:
        name = getattr(network, "name", type(network).__name__)
        raise DistilleryError(f"{name} has no drop path: override `drop_path: null` for it")
    if spreading:
        return
    rates = [rate_of(module) for _, module in found]
    if max(rates) > 0:
        rates = [r * rate / max(rates) for r in rates]
    else:
        blocks = list(dict.fromkeys(path.rpartition(".")[0] for path, _ in found))
        rising = torch.linspace(0, rate, len(blocks), device="cpu").tolist() if len(blocks) > 1 else [rate]
        rates = [rising[blocks.index(path.rpartition(".")[0])] for path, _ in found]
    for (_, module), value in zip(found, rates, strict=True):
        setattr(module, RATES[type(module).__name__], value)


def rate_of(module: nn.Module) -> float:
    """The rate of a module that drops paths."""
    value: Any = getattr(module, RATES[type(module).__name__])
    return float(value)
