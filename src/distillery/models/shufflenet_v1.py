"""ShuffleNetV1 (Zhang et al. 2018), three groups, in the CIFAR form of RepDistiller and mdistiller."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.layers import conv, shuffle
from distillery.models.staged import Stage, StagedNetwork

GROUPS = 3
STEM = 24


class Bottleneck(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added to its input, or concatenated with it pooled."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        added = outputs - inputs if stride == 2 else outputs  # the concatenated input supplies the other channels
        middle = added // 4
        self.stride = stride
        self.groups = 1 if inputs == STEM else GROUPS  # 24 channels are too few to be grouped
        self.conv1 = conv(inputs, middle, 1, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = conv(middle, middle, 3, stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = conv(middle, added, 1, groups=GROUPS)
        self.bn3 = nn.BatchNorm2d(added)

    def forward(self, features: Tensor) -> Tensor:
        """Return the joined branches, before the closing ReLU."""
        out = F.relu(self.bn1(self.conv1(features)), inplace=True)
        if self.groups > 1:
            out = shuffle(out, self.groups)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        if self.stride == 1:
            return out.add_(features)
        return torch.cat((out, F.avg_pool2d(features, 3, stride=2, padding=1)), 1)


class ShuffleNetV1(StagedNetwork):
    """1x1 stem at full resolution, stages of 240, 480 and 960 channels, global average pooling, `linear`.

    The framework's default initialisation is the lineage's. No normalisation ends a stage: `stage_norms` refuses.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _stage(STEM, 240, 4)
        self.layer2 = _stage(240, 480, 8)
        self.layer3 = _stage(480, 960, 4)
        self.linear = nn.Linear(960, num_classes)

    def stem(self, images: Tensor) -> Tensor:
        """1x1 convolution, normalisation, ReLU."""
        return F.relu(self.bn1(self.conv1(images)), inplace=True)

    def stages(self) -> tuple[Stage, ...]:
        """The three stages."""
        return self.layer1, self.layer2, self.layer3

    @property
    def head(self) -> nn.Linear:
        """The classifier `linear`."""
        return self.linear


def _stage(inputs: int, outputs: int, blocks: int) -> Stage:
    return Stage(Bottleneck(inputs, outputs, 2), *(Bottleneck(outputs, outputs, 1) for _ in range(blocks - 1)))
