"""ResNet-18, -34 and -50 (He et al. 2016) with two stems; keys as in mdistiller's CIFAR form.

CIFAR: 3x3, stride 1, no max pooling. ImageNet: 7x7, stride 2, max pooling, torchvision's and mdistiller's network; the
keys of a released checkpoint are renamed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.layers import conv, init_convolutions
from distillery.models.staged import Stage, StagedNetwork, Step, norm_at


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A 1x1 convolution and normalisation where stride or width change, else the identity."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    expansion = 1
    last_norm = "bn2"

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of both branches, before the closing ReLU."""
        out = F.relu(self.bn1(self.conv1(features)), inplace=True)
        return self.bn2(self.conv2(out)).add_(self.shortcut(features))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions; four times as wide at the end."""

    expansion = 4
    last_norm = "bn3"

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(inputs, 4 * width, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of both branches, before the closing ReLU."""
        out = F.relu(self.bn1(self.conv1(features)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        return self.bn3(self.conv3(out)).add_(self.shortcut(features))


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class FourStageResNet(StagedNetwork):
    """Stem of 64 channels, four stages with strides 1, 2, 2, 2, global average pooling, `linear`."""

    def __init__(
        self, block: str, depths: Sequence[int], num_classes: int, in_channels: int = 3, imagenet: bool = False
    ) -> None:
        """Take the kind of block ("basic" or "bottleneck"), the number of blocks in each stage, and the stem."""
        super().__init__()
        kind = BLOCKS[block]
        self.last_norm, self.imagenet = kind.last_norm, imagenet
        self.conv1 = conv(in_channels, 64, 7, 2) if imagenet else conv(in_channels, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        inputs, stages = 64, []
        for depth, width, stride in zip(depths, (64, 128, 256, 512), (1, 2, 2, 2), strict=True):
            first = kind(inputs, width, stride)
            inputs = width * kind.expansion
            stages.append(Stage(first, *(kind(inputs, width, 1) for _ in range(depth - 1))))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(inputs, num_classes)
        init_convolutions(self)

    def stem(self, images: Tensor) -> Tensor:
        """Convolution, normalisation, ReLU; the max pooling after it belongs to the first stage."""
        return F.relu(self.bn1(self.conv1(images)), inplace=True)

    def stages(self) -> tuple[Step, ...]:
        """The four stages."""
        first = partial(_pooled, self.layer1) if self.imagenet else self.layer1
        return first, self.layer2, self.layer3, self.layer4

    def renamed(self, key: str) -> str:
        """The name here of what torchvision calls `key`."""
        return re.sub(r"^fc\.", "linear.", key.replace(".downsample.", ".shortcut.")) if self.imagenet else key

    @property
    def head(self) -> nn.Linear:
        """The classifier `linear`."""
        return self.linear

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """The last normalisation in the main branch of each stage's last block."""
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        return [norm_at(stage[-1], self.last_norm) for stage in stages]


def _pooled(stage: Stage, features: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    out: tuple[Tensor, Tensor] = stage(F.max_pool2d(features, 3, 2, 1), keep)
    return out
