"""Small parts that several families share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NARROW = 16  # channels: below it oneDNN may write beyond its memory (see Skipping)


class Skipping(nn.Conv2d):
    """A 1x1 convolution with a stride that first takes the pixels which count, then multiplies: the same sums.

    For few channels on a CPU: oneDNN 3.12, which torch 2.14 and 2.15 have, skips the pixels itself in the gradient of
    the weights, and where channels lie last writes beyond its memory (uxlfoundation/oneDNN#6035).
    """

    def forward(self, input: Tensor) -> Tensor:
        down, across = self.stride
        return F.conv2d(input[:, :, ::down, ::across], self.weight, self.bias)


def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A size x size convolution without bias that keeps the map's size at stride 1."""
    kind = Skipping if size == 1 and stride > 1 and groups == 1 and inputs < NARROW else nn.Conv2d
    return kind(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)


def overrunning(network: nn.Module) -> list[str]:
    """Names of the convolutions in whose gradients oneDNN may write beyond its memory, on a CPU with channels last."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
        and not isinstance(module, Skipping)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels // module.groups < NARROW
    ]


def init_convolutions(network: nn.Module) -> None:
    """He initialisation of all convolutions: weights N(0, 2 / (k * k * C_out)), groups ignored, biases 0.

    The ResNets of the lineage write it as Kaiming-normal over the fan-out, the others by hand; it is the same thing.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_head(head: nn.Linear) -> None:
    """Initialise a classifier with weights N(0, 0.01 squared) and biases 0."""
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)


def _channels_last(features: Tensor) -> bool:
    return features.is_contiguous(memory_format=torch.channels_last)


def shuffle(features: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` equal groups: (B, g * c, H, W) to the same shape and memory format."""
    layout = torch.channels_last if _channels_last(features) else torch.contiguous_format
    # The device kernels of channel_shuffle differ in the format they return.
    return F.channel_shuffle(features, groups).contiguous(memory_format=layout)


def interleave(left: Tensor, right: Tensor) -> Tensor:
    """Concatenate two (B, c, H, W) maps and shuffle them in two groups: left 0, right 0, left 1, right 1, ..."""
    if _channels_last(right):
        return shuffle(torch.cat((left, right), 1), 2)
    return torch.stack((left, right), 2).flatten(1, 2)  # one copy where concatenating first takes two
