"""3-D ResNets for clips: those of `resnet.py` with time as a third axis (Hara et al., arXiv:1711.09577).

A declared design: no published number belongs to them. A clip is an image whose channels are its frames
(`distillery.data.clips`), C colours each. What leaves the network has two axes of positions again: a map of T frames is
(B, channels, T * height, width), one frame below the other, so that whatever compares maps or pools them over positions
works on clips as on images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.models.base import Network
from distillery.models.staged import Stage, StagedNetwork, Step, norm_at


class ClipNetwork(Network):
    """Base of networks with 3-D convolutions: what is `channels_last` for images is `channels_last_3d` for these."""

    def to(self, *args: Any, **keys: Any) -> Self:
        """Move or convert as any module."""
        if keys.get("memory_format") is torch.channels_last:
            keys["memory_format"] = torch.channels_last_3d
        return super().to(*args, **keys)


class BasicBlock3d(nn.Module):
    """Two 3x3x3 convolutions and a shortcut, which is a 1x1x1 convolution where stride or width change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm3d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm3d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm3d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of both branches of (B, channels, T, H, W), before the closing ReLU."""
        out = F.relu(self.bn1(self.conv1(features)), inplace=True)
        out = self.bn2(self.conv2(out))
        return out.add_(features if self.downsample is None else self.downsample(features))


class ResNet3d(ClipNetwork, StagedNetwork):
    """Stem, three stages of basic blocks with strides 1, 2, 2 in time and space, global average pooling, `fc`.

    The stem halves height and width, and keeps the frames, as that of torchvision's `r3d_18` does.

    Args:
        depth: 6n + 2, n blocks per stage.
        widths: of stem and stages.
        in_channels: T * colours. Raises DistilleryError unless it is a multiple of `colours`.
        colours: channels of one frame.
    """

    def __init__(
        self, depth: int, widths: Sequence[int], num_classes: int, in_channels: int = 8, colours: int = 1
    ) -> None:
        super().__init__()
        stem, one, two, three = widths
        blocks = (depth - 2) // 6
        self.colours, self.frames = colours, frames_of(in_channels, colours)
        self.conv1 = nn.Conv3d(colours, stem, 3, (1, 2, 2), padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(stem)
        self.layer1 = _stage(stem, one, blocks, stride=1)
        self.layer2 = _stage(one, two, blocks, stride=2)
        self.layer3 = _stage(two, three, blocks, stride=2)
        self.fc = nn.Linear(three, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, images: Tensor) -> Tensor:
        """3x3x3 convolution, normalisation, ReLU: (B, T * colours, H, W) -> (B, channels, T * H/2, W/2)."""
        return folded(F.relu(self.bn1(self.conv1(unfolded(images, self.colours))), inplace=True))

    def stages(self) -> tuple[Step, ...]:
        """The three stages, from one folded map to the next."""
        frames = (self.frames, self.frames, -(-self.frames // 2))  # that each of them is given
        stages = (self.layer1, self.layer2, self.layer3)
        return tuple(_over_frames(stage, count) for stage, count in zip(stages, frames, strict=True))

    @property
    def head(self) -> nn.Linear:
        """The classifier `fc`."""
        return self.fc

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """The second normalisation of each stage's last block."""
        return [norm_at(stage[-1], "bn2") for stage in (self.layer1, self.layer2, self.layer3)]


def frames_of(channels: int, colours: int) -> int:
    """How many frames images of so many channels are. Raises DistilleryError if it is no whole number."""
    if channels % colours:
        raise DistilleryError(
            f"it takes clips of {colours} channels a frame, and the data has {channels} channels, no multiple of it: "
            "set `data.channels`, or take the network for the other kind of frames"
        )
    return channels // colours


def unfolded(images: Tensor, colours: int) -> Tensor:
    """Images whose channels are frames as clips: (B, T * colours, H, W) -> (B, colours, T, H, W)."""
    return images.unflatten(1, (-1, colours)).transpose(1, 2).contiguous()


def folded(features: Tensor) -> Tensor:
    """The frames of a map one below the other: (B, channels, T, H, W) -> (B, channels, T * H, W)."""
    return features.flatten(2, 3)


def _over_frames(stage: Stage, frames: int) -> Step:
    def step(features: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
        after, before = stage(features.unflatten(2, (frames, -1)), keep)
        return folded(after), folded(before)

    return step


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> Stage:
    return Stage(BasicBlock3d(inputs, outputs, stride), *(BasicBlock3d(outputs, outputs, 1) for _ in range(blocks - 1)))
