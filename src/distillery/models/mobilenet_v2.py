"""MobileNetV2 (Sandler et al. 2018) at half width, expansion 6, in the CIFAR form of RepDistiller and mdistiller."""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor, nn

from distillery.models.base import Outputs
from distillery.models.layers import conv, init_convolutions, init_head
from distillery.models.staged import StagedNetwork, Step, norm_at

# expansion, width (already halved), blocks, stride of the first
GROUPS = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))
STAGES = ((0, 1), (2,), (3, 4), (5, 6))  # the groups that lead to each tap after the stem


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection; a residual where stride and width allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            conv(inputs, middle, 1),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            conv(middle, middle, 3, stride, groups=middle),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            conv(middle, outputs, 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the linear bottleneck: no activation follows."""
        out = self.conv(features)
        return out.add_(features) if self.residual else out


class MobileNetV2(StagedNetwork):
    """Stem with stride 2, seven groups, 1x1 convolution to 1280, global average pooling, `classifier`."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        width = 16
        self.conv1 = nn.Sequential(conv(in_channels, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList()
        for expansion, outputs, blocks, stride in GROUPS:
            first = InvertedResidual(width, outputs, stride, expansion)
            rest = (InvertedResidual(outputs, outputs, 1, expansion) for _ in range(blocks - 1))
            self.blocks.append(nn.Sequential(first, *rest))
            width = outputs
        self.conv2 = nn.Sequential(conv(width, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU(inplace=True))
        self.classifier = nn.Sequential(nn.Linear(1280, num_classes))
        init_convolutions(self)
        init_head(self.head)

    def stem(self, images: Tensor) -> Tensor:
        """3x3 convolution with stride 2, normalisation, ReLU."""
        return self.conv1(images)

    def stages(self) -> tuple[Step, ...]:
        """The groups that lead from each tap to the next."""
        return tuple(partial(self._groups, groups) for groups in STAGES)

    def _groups(self, groups: tuple[int, ...], features: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
        for group in groups:
            features = self.blocks[group](features)
        return features, features

    def last(self, features: Tensor) -> Tensor:
        """The closing 1x1 convolution with normalisation and ReLU."""
        features = self.conv2(features)
        return features

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images to `Outputs`; linear bottlenecks have no activation, so no `preacts`."""
        return super().forward(images)

    @property
    def head(self) -> nn.Linear:
        """The only layer of `classifier`."""
        return cast(nn.Linear, self.classifier[0])

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """The last normalisation of each tapped group."""
        return [norm_at(self.blocks, f"{end}.{GROUPS[end][2] - 1}.conv.7") for *_, end in STAGES]
