"""ShuffleNetV2 (Ma et al. 2018), width x1, in the CIFAR form of RepDistiller and mdistiller."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.layers import conv, interleave
from distillery.models.staged import StagedNetwork


class DownBlock(nn.Module):
    """Two branches with stride 2, each half of the output, interleaved."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = conv(inputs, inputs, 3, 2, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = conv(inputs, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(inputs, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv(half, half, 3, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, features: Tensor) -> Tensor:
        """Return the interleaved branches, both after their ReLU."""
        left = self.bn1(self.conv1(features))
        left = F.relu(self.bn2(self.conv2(left)), inplace=True)
        right = F.relu(self.bn3(self.conv3(features)), inplace=True)
        right = self.bn4(self.conv4(right))
        right = F.relu(self.bn5(self.conv5(right)), inplace=True)
        return interleave(left, right)


class BasicBlock(nn.Module):
    """One half of the channels passes untouched, the other through 1x1, depthwise 3x3, 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the untouched half and the other half before its ReLU."""
        untouched, out = features.chunk(2, 1)
        out = F.relu(self.bn1(self.conv1(out)), inplace=True)
        out = self.bn2(self.conv2(out))
        return untouched, self.bn3(self.conv3(out))


class ShuffleStage(nn.Sequential):
    """One down block, then basic blocks whose halves are joined here."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__(DownBlock(inputs, outputs), *(BasicBlock(outputs) for _ in range(blocks)))

    def forward(self, features: Tensor, keep: bool = False) -> tuple[Tensor, Tensor]:
        """Return the stage's map and its last block's halves before ReLU and shuffle: another channel order."""
        down, *blocks = self
        features = preact = down(features)
        for block in blocks:
            untouched, active = block(features)
            if keep and block is blocks[-1]:
                preact = torch.cat((untouched, active), 1)  # copies, so that the ReLU below may work in place
            features = interleave(untouched, F.relu(active, inplace=True))
        return features, preact


class ShuffleNetV2(StagedNetwork):
    """1x1 stem at full resolution, stages of 116, 232 and 464 channels, 1x1 convolution to 1024, pooling, `linear`.

    The framework's default initialisation is the lineage's. No normalisation ends a stage: `stage_norms` refuses.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, 24, 1)
        self.bn1 = nn.BatchNorm2d(24)
        self.layer1 = ShuffleStage(24, 116, 3)
        self.layer2 = ShuffleStage(116, 232, 7)
        self.layer3 = ShuffleStage(232, 464, 3)
        self.conv2 = conv(464, 1024, 1)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, num_classes)

    def stem(self, images: Tensor) -> Tensor:
        """1x1 convolution, normalisation, ReLU."""
        return F.relu(self.bn1(self.conv1(images)), inplace=True)

    def stages(self) -> tuple[ShuffleStage, ...]:
        """The three stages."""
        return self.layer1, self.layer2, self.layer3

    def last(self, features: Tensor) -> Tensor:
        """The closing 1x1 convolution with normalisation and ReLU."""
        return F.relu(self.bn2(self.conv2(features)), inplace=True)

    @property
    def head(self) -> nn.Linear:
        """The classifier `linear`."""
        return self.linear
