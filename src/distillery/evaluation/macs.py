"""What a network costs to run."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from distillery.models.base import Network


@torch.no_grad()
def multiply_accumulates(network: Network, image: torch.Tensor) -> int:
    """Count the multiply-accumulates of convolution and linear layers for one (1, channels, H, W) image.

    Biases, normalisation and activations are left out, as in the literature's tables.
    """
    network.eval()(image)  # once without counting: a module of the user's may be looked at now (models/wrap.py)
    with FlopCounterMode(display=False) as counter:
        _spare_the_compiler(type(counter.mode).__torch_dispatch__)
        network(image)
    return counter.get_total_flops() // 2


def _spare_the_compiler(function: Any) -> None:
    """Let a function that torch keeps from being compiled be called as it is.

    torch wraps it when it is first called, imports its compiler for that, a third of what an evaluation of a small
    network takes, and notes the result on the function. Where it works in another way this does nothing.
    """
    if (own := getattr(function, "__wrapped__", None)) is not None:
        own.__dynamo_disable = own
