"""The 3-D ResNets of torchvision (Tran et al., arXiv:1711.11248): r3d_18, mc3_18, r2plus1d_18.

They take clips of colour, T * 3 channels (`distillery.data.clips`), or of grey, which is repeated; 33 to 12 million
parameters. Taps are those of `resnet3d.py`: stem, then four stages, the frames of a map one below the other.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distillery.models.base import Outputs
from distillery.models.resnet3d import ClipNetwork, folded, frames_of, unfolded

RGB = 3


class TorchvisionVideo(ClipNetwork):
    """A network of torchvision.models.video, freshly initialised as it is there.

    Args:
        name: as torchvision calls it.
        colours: channels of one frame of the data, 3, or 1 for grey frames.
    """

    def __init__(self, name: str, num_classes: int, in_channels: int = 24, colours: int = RGB) -> None:
        import torchvision.models

        super().__init__()
        frames_of(in_channels, colours)
        self.colours = colours
        self.module: Any = torchvision.models.get_model(name, weights=None, num_classes=num_classes)

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, T * colours, H, W) images to `Outputs`; pre-activations are not at hand."""
        features = self.module.stem(unfolded(images, self.colours).expand(-1, RGB, -1, -1, -1))
        maps = [folded(features)]
        for stage in (self.module.layer1, self.module.layer2, self.module.layer3, self.module.layer4):
            features = stage(features)
            maps.append(folded(features))
        pooled = features.mean((2, 3, 4))
        return Outputs(self.head(pooled), pooled, tuple(maps))

    @property
    def head(self) -> nn.Linear:
        """The classifier `fc`."""
        found: nn.Linear = self.module.fc
        return found
