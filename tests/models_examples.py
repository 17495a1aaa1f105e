"""Small networks and images for tests that do not compare with the golden vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillery.models import build
from distillery.models.base import Network

# One or two small members of each family, for everything that does not depend on depth and width.
FAMILIES = ["resnet8", "resnet8x4", "resnet8_w2", "wrn_16_1", "wrn_16_2", "vgg8", "vgg13", "resnet18", "resnet50"]
FAMILIES += ["mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "mobilenet_v1", "imagenet_resnet18"]


def example(name: str, size: int = 32, channels: int = 3, batch: int = 2) -> tuple[Network, Tensor]:
    """A float64 network in evaluation mode, with running statistics that differ from 0 and 1, and random images."""
    torch.manual_seed(0)
    network = build(name, 7, channels).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return network, torch.randn(batch, channels, size, size, dtype=torch.float64)
