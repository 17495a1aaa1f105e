"""VGG with batch normalisation (Simonyan & Zisserman 2015) in the CIFAR form of RepDistiller and mdistiller."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.layers import init_convolutions, init_head
from distillery.models.staged import StagedNetwork, norm_at

WIDTHS = (64, 128, 256, 512, 512)


class Block(nn.Sequential):
    """Convolutions with bias, each normalised, ReLUs between; the last ReLU is applied outside the sequence."""

    def __init__(self, index: int, inputs: int, outputs: int, convolutions: int) -> None:
        layers: list[nn.Module] = []
        for i in range(convolutions):
            layers += [nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(inplace=True)]
        super().__init__(*layers[:-1])
        self.index = index

    def forward(self, features: Tensor, keep: bool = False) -> tuple[Tensor, Tensor]:
        """Max-pool the input where the architecture does; return this block's map after and before its ReLU."""
        # The last pooling exists for 64-pixel images alone, whose map at that place is 8 high.
        if self.index in (1, 2, 3) or (self.index == 4 and features.shape[2] == 8):
            features = F.max_pool2d(features, 2)
        preact: Tensor = super().forward(features)  # type: ignore[no-untyped-call]
        return F.relu(preact, inplace=not keep), preact


class VGG(StagedNetwork):
    """Five blocks, max pooling before blocks 1, 2, 3, global average pooling, one linear `classifier`."""

    def __init__(self, convolutions: Sequence[int], num_classes: int, in_channels: int = 3) -> None:
        """Take the number of convolutions in each of the five blocks."""
        super().__init__()
        inputs = (in_channels, *WIDTHS[:-1])
        blocks = [Block(i, inputs[i], WIDTHS[i], convolutions[i]) for i in range(5)]
        self.block0, self.block1, self.block2, self.block3, self.block4 = blocks
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)
        init_convolutions(self)
        init_head(self.classifier)

    def stem(self, images: Tensor) -> Tensor:
        """Block 0 with its ReLU."""
        return self.block0(images)[0]

    def stages(self) -> tuple[Block, ...]:
        """Blocks 1 to 4."""
        return self.block1, self.block2, self.block3, self.block4

    @property
    def head(self) -> nn.Linear:
        """The linear `classifier`."""
        return self.classifier

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """The last normalisation of blocks 1 to 4."""
        return [norm_at(block, str(len(block) - 1)) for block in self.stages()]
