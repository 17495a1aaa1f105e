"""PiT (Heo et al., arXiv:2103.16302): a vision transformer whose token grid is pooled; keys as timm's pit_ti_224."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distillery.models.base import Outputs
from distillery.models.vit import EPS, Block, DropPath, VisionTransformer, cut, map_of, positions, tokens_of


class Embedding(nn.Module):
    """16x16 convolution with stride 8."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 16, 8)

    def forward(self, images: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, h, w)."""
        return cut(self.conv, images)


class Pool(nn.Module):
    """Depthwise 3x3 convolution with stride 2 for the patch tokens, a linear layer for the class token."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, padding=1, groups=inputs)
        self.fc = nn.Linear(inputs, outputs)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Map (B, 1 + h * w, inputs) tokens and their grid to the next stage's."""
        features = self.conv(map_of(tokens[:, 1:], grid))
        return torch.cat([self.fc(tokens[:, :1]), tokens_of(features)], 1), (features.shape[-2], features.shape[-1])


class Stage(nn.Module):
    """A pooling, except in the first stage, and blocks."""

    def __init__(self, inputs: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.pool = Pool(inputs, width) if inputs else None

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Map tokens, class token first, and their grid to the stage's."""
        if self.pool is not None:
            tokens, grid = self.pool(tokens, grid)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens, grid


class PiT(VisionTransformer):
    """Three stages; the class token goes through all of them.

    PiT-Ti: widths 64, 128, 256, heads 2, 4, 8, depths 2, 6, 4.
    Images may have any size that holds a patch; the position embeddings are interpolated for all but `image_size`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        heads: Sequence[int],
        depths: Sequence[int],
        num_classes: int,
        in_channels: int = 3,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        self.side = (image_size - 16) // 8 + 1
        self.pos_embed = nn.Parameter(torch.zeros(1, widths[0], self.side, self.side))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, widths[0]))
        self.patch_embed = Embedding(in_channels, widths[0])
        self.transformers = nn.ModuleList(
            Stage(inputs, *sizes) for inputs, *sizes in zip((0, *widths), widths, heads, depths, strict=False)
        )
        self.norm = nn.LayerNorm(widths[-1], EPS)
        self.classify(widths[-1], num_classes)  # all linear layers keep torch's own initialisation, as released
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def spread_drop_path(self, rate: float) -> None:
        """Give block i of n the rate i / n * `rate`, as released; elsewhere the last block has all of it."""
        paths = [module for module in self.modules() if isinstance(module, DropPath)]
        for i, path in enumerate(paths):
            path.drop_prob = rate * i / len(paths)

    def renamed(self, key: str) -> str:
        """The name here of what a checkpoint of tiny-transformers calls `key`."""
        pools = {f"pools.{i}.": f"transformers.{i + 1}.pool." for i in range(len(self.transformers) - 1)}
        return super().renamed(pools.get(key[:8], key[:8]) + key[8:])

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images to `Outputs`. Tokens: the patches' at the end of every stage."""
        features = self.patch_embed(images)
        grid = (features.shape[-2], features.shape[-1])
        patches = tokens_of(features) + positions(tokens_of(self.pos_embed), self.side, grid)
        tokens, taps = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], 1), []
        for stage in self.transformers:
            tokens, grid = stage(tokens, grid)
            taps.append(tokens[:, 1:])
        pooled = self.norm(tokens[:, 0])
        return Outputs(self.head(pooled), pooled, tokens=tuple(taps))
