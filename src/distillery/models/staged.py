"""The shape that all families share: a stem, a row of stages, a pooling and a linear head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.base import Network, Outputs

# What leads from one tap to the next: (map, keep) -> (next map, the same before its activation).
# The second is only sure to be intact where `keep` is set.
Step: TypeAlias = Callable[[Tensor, bool], tuple[Tensor, Tensor]]


class Stage(nn.Sequential):
    """A row of blocks, each of which returns its sum *before* the closing ReLU; the stage applies that ReLU."""

    def forward(self, features: Tensor, keep: bool = False) -> tuple[Tensor, Tensor]:
        """Return the stage's map after and before its last ReLU; the latter is intact only if `keep` is set."""
        preact = features
        for block in self:
            preact = block(features)
            features = F.relu(preact, inplace=not keep)
        return features, preact


class StagedNetwork(Network, ABC):
    """A network made of `stem`, `stages`, `last` and `head`; `forward` and `tail` follow from these four."""

    @abstractmethod
    def stem(self, images: Tensor) -> Tensor:
        """Map (B, channels, H, W) images to the first tap."""

    @abstractmethod
    def stages(self) -> Sequence[Step]:
        """Return the stages in order."""

    def last(self, features: Tensor) -> Tensor:
        """Map the last tap to the (B, d, height, width) map that is pooled: itself."""
        return features

    def pool(self, last: Tensor) -> Tensor:
        """Map that map to the (B, d) penultimate features: the mean over positions, whatever the image size."""
        return last.mean((2, 3))

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images to `Outputs`; the first pre-activation tap is the stem map itself."""
        features = self.stem(images)
        maps, before = [features], [features]
        for stage in self.stages():
            features, preact = stage(features, preacts)
            maps.append(features)
            before.append(preact)
        last = self.last(features)
        pooled = self.pool(last)
        return Outputs(self.head(pooled), pooled, tuple(maps), tuple(before) if preacts else (), last=last)

    def tail(self, features: Tensor, stage: int) -> Tensor:
        """Run the rest of the network from `maps[stage]` (0 is the stem) on and return the (B, C) logits."""
        rest = self.stages()
        if not 0 <= stage <= len(rest):
            raise ValueError(f"{type(self).__name__} has the stages 0 to {len(rest)}, so it cannot start after {stage}")
        for step in rest[stage:]:
            features, _ = step(features, False)
        return self.head(self.pool(self.last(features)))


def norm_at(block: nn.Module, name: str) -> nn.BatchNorm2d:
    """The batch normalisation called `name` inside `block`."""
    return cast(nn.BatchNorm2d, block.get_submodule(name))
