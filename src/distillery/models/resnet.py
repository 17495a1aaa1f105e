"""The thin CIFAR ResNets (He et al. 2016, section 4.2) with the widths of the distillation benchmark.

resnet8 ... resnet110 have the widths 16-16-32-64, resnet8x4 and resnet32x4 32-64-128-256; keys and taps are those of
RepDistiller and mdistiller; those of tiny-transformers (the logit-standardisation paper's ResNet-56, the same network)
are renamed. `resnet<depth>_w<w>` (widths w-w-2w-4w) are ours, for small grey images such as the 8 x 8
digits of scikit-learn; no published number belongs to them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.layers import conv, init_convolutions
from distillery.models.staged import Stage, StagedNetwork, norm_at

# What tiny-transformers (after pycls) calls the parts; its stages and blocks are counted from 1.
_PYCLS = {"f.a": "conv1", "f.a_bn": "bn1", "f.b": "conv2", "f.b_bn": "bn2"}
_PYCLS |= {"proj": "downsample.0", "bn": "downsample.1"}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where stride or width change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of both branches, before the closing ReLU."""
        out = F.relu(self.bn1(self.conv1(features)), inplace=True)
        out = self.bn2(self.conv2(out))
        return out.add_(features if self.downsample is None else self.downsample(features))


class ResNet(StagedNetwork):
    """Stem, three stages of basic blocks with strides 1, 2, 2, global average pooling, `fc`."""

    def __init__(self, depth: int, widths: Sequence[int], num_classes: int, in_channels: int = 3) -> None:
        """Take the depth 6n + 2 (n blocks per stage) and the widths of stem and stages."""
        super().__init__()
        stem, one, two, three = widths
        blocks = (depth - 2) // 6
        self.conv1 = conv(in_channels, stem, 3)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, one, blocks, stride=1)
        self.layer2 = _stage(one, two, blocks, stride=2)
        self.layer3 = _stage(two, three, blocks, stride=2)
        self.fc = nn.Linear(three, num_classes)
        init_convolutions(self)

    def stem(self, images: Tensor) -> Tensor:
        """3x3 convolution, normalisation, ReLU."""
        return F.relu(self.bn1(self.conv1(images)), inplace=True)

    def stages(self) -> tuple[Stage, ...]:
        """The three stages."""
        return self.layer1, self.layer2, self.layer3

    def renamed(self, key: str) -> str:
        """The name here of what a checkpoint of tiny-transformers calls `key`."""
        for theirs, ours in (("stem.conv.", "conv1."), ("stem.bn.", "bn1."), ("head.fc.", "fc.")):
            if key.startswith(theirs):
                return ours + key.removeprefix(theirs)
        found = re.fullmatch(r"s(\d)\.b(\d+)\.(f\.a_bn|f\.b_bn|f\.a|f\.b|proj|bn)\.(\w+)", key)
        return f"layer{found[1]}.{int(found[2]) - 1}.{_PYCLS[found[3]]}.{found[4]}" if found else key

    @property
    def head(self) -> nn.Linear:
        """The classifier `fc`."""
        return self.fc

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """The second normalisation of each stage's last block."""
        return [norm_at(stage[-1], "bn2") for stage in self.stages()]


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> Stage:
    return Stage(BasicBlock(inputs, outputs, stride), *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))
