"""What a network costs to run."""

from __future__ import annotations

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
        network(image)
    return counter.get_total_flops() // 2
