"""Wide residual networks (Zagoruyko & Komodakis 2016) for CIFAR, without dropout: wrn_<depth>_<widening factor>.

The blocks are pre-activation blocks, so the taps in `maps` are raw sums (negative values occur) and the stem tap is a
bare convolution. Keys and taps are those of RepDistiller and mdistiller.
"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.base import Outputs
from distillery.models.layers import conv, init_convolutions
from distillery.models.staged import StagedNetwork, norm_at


class PreactBlock(nn.Module):
    """BN-ReLU-conv twice. Where the width changes, both branches start from the first BN-ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.convShortcut = None if inputs == outputs else conv(inputs, outputs, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Return the raw sum of both branches."""
        out = F.relu(self.bn1(features), inplace=True)
        shortcut = features if self.convShortcut is None else self.convShortcut(out)
        out = F.relu(self.bn2(self.conv1(out)), inplace=True)
        return self.conv2(out).add_(shortcut)


class PreactStage(nn.Module):
    """The blocks of one width."""

    def __init__(self, inputs: int, outputs: int, blocks: int, stride: int) -> None:
        super().__init__()
        rest = (PreactBlock(outputs, outputs, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(PreactBlock(inputs, outputs, stride), *rest)

    def forward(self, features: Tensor, keep: bool = False) -> tuple[Tensor, Tensor]:
        """Return the stage's raw map, twice: its activation belongs to the next stage."""
        features = self.layer(features)
        return features, features


class WideResNet(StagedNetwork):
    """Stem convolution, three stages with strides 1, 2, 2, BN-ReLU, global average pooling, `fc`."""

    def __init__(self, depth: int, factor: int, num_classes: int, in_channels: int = 3) -> None:
        """Take the depth 6n + 4 (n blocks per stage) and the widening factor k: widths 16, 16k, 32k, 64k."""
        super().__init__()
        one, two, three = 16 * factor, 32 * factor, 64 * factor
        blocks = (depth - 4) // 6
        self.conv1 = conv(in_channels, 16, 3)
        self.block1 = PreactStage(16, one, blocks, stride=1)
        self.block2 = PreactStage(one, two, blocks, stride=2)
        self.block3 = PreactStage(two, three, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(three)
        self.fc = nn.Linear(three, num_classes)
        init_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def stem(self, images: Tensor) -> Tensor:
        """3x3 convolution alone."""
        return self.conv1(images)

    def stages(self) -> tuple[PreactStage, ...]:
        """The three stages."""
        return self.block1, self.block2, self.block3

    def last(self, features: Tensor) -> Tensor:
        """The closing BN-ReLU."""
        return F.relu(self.bn1(features), inplace=True)

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images to `Outputs`.

        The pre-activation taps call three normalisations a second time on the raw maps, as mdistiller does. In training
        mode these then count the batch, and move their running statistics, twice.
        """
        outputs = super().forward(images)
        if not preacts:
            return outputs
        stem, *maps = outputs.maps
        return replace(outputs, preacts=(stem, *(norm(m) for norm, m in zip(self.stage_norms(), maps, strict=True))))

    @property
    def head(self) -> nn.Linear:
        """The classifier `fc`."""
        return self.fc

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """What normalises each stage's raw map: the next stage's first normalisation, or the closing one."""
        return [norm_at(self.block2, "layer.0.bn1"), norm_at(self.block3, "layer.0.bn1"), self.bn1]
