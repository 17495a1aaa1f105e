"""MobileNetV1 (Howard et al., arXiv:1704.04861) in the ImageNet form of mdistiller, the student of every KD table."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.layers import conv
from distillery.models.staged import StagedNetwork, Step, norm_at

# width and stride of the depthwise separable convolutions
LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), *(((512, 2),) + ((512, 1),) * 5), (1024, 2), (1024, 1))
ENDS = (3, 5, 11, 13)  # the layers, counted from the stem, that close a stage


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    depthwise = (conv(inputs, inputs, 3, stride, groups=inputs), nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
    return nn.Sequential(*depthwise, conv(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class MobileNetV1(StagedNetwork):
    """Stem with stride 2, thirteen depthwise separable convolutions, global average pooling, `fc`."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        widths = (32, *(width for width, _ in LAYERS))
        stem = nn.Sequential(conv(in_channels, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        layers = (_separable(inputs, *layer) for inputs, layer in zip(widths, LAYERS, strict=False))
        self.model = nn.Sequential(stem, *layers)
        self.fc = nn.Linear(widths[-1], num_classes)  # torch's own initialisation throughout, as released

    def stem(self, images: Tensor) -> Tensor:
        """3x3 convolution with stride 2, normalisation, ReLU."""
        out: Tensor = self.model[0](images)
        return out

    def stages(self) -> tuple[Step, ...]:
        """The layers that lead from each tap to the next."""
        starts = (1, *(end + 1 for end in ENDS[:-1]))
        return tuple(partial(self._layers, range(start, end + 1)) for start, end in zip(starts, ENDS, strict=True))

    def _layers(self, which: range, features: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
        for i in which[:-1]:
            features = self.model[i](features)
        for part in list(self.model[which[-1]].children())[:-1]:  # without its ReLU
            features = part(features)
        return F.relu(features, inplace=not keep), features

    @property
    def head(self) -> nn.Linear:
        """The classifier `fc`."""
        return self.fc

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """The last normalisation of each stage."""
        return [norm_at(self.model, f"{end}.4") for end in ENDS]
