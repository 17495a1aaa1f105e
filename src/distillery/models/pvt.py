"""PVT (Wang et al., arXiv:2102.12122), first version: four stages of tokens, keys and values on a coarser grid.

`pvt_ti` is the form of the logit-standardisation paper's code (tiny-transformers), keys as the authors' own; timm has
the second version only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.base import Outputs
from distillery.models.vit import EPS, Block, VisionTransformer, cut, init_linear, map_of, positions, tokens_of

PATCHES = (4, 2, 2, 2)


class ReducedAttention(nn.Module):
    """Attention whose keys and values are read from the token grid after a convolution with stride `reduction`."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.sr: nn.Conv2d | None = None
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width, EPS)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Map (B, N, width) to the same shape; without reduction N may hold a class token."""
        query = self.q(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
        if self.sr is not None:
            tokens = self.norm(tokens_of(cut(self.sr, map_of(tokens, (height, width)))))
        key, value = self.kv(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return mixed


class Embedding(nn.Module):
    """Patches, normalised."""

    def __init__(self, inputs: int, width: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, size, size)
        self.norm = nn.LayerNorm(width, EPS)

    def forward(self, features: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, inputs, H, W) -> (B, h * w, width) tokens, and their grid (h, w)."""
        features = cut(self.proj, features)
        return self.norm(tokens_of(features)), (features.shape[-2], features.shape[-1])


class PVT(VisionTransformer):
    """Four stages; a class token joins in the last.

    PVT-Ti: widths 64, 128, 320, 512, heads 1, 2, 5, 8, MLP ratios 8, 8, 4, 4, reductions 8, 4, 2, 1, two blocks each.
    Images may have any size from 32 pixels on; the position embeddings are interpolated for all but `image_size`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        heads: Sequence[int],
        ratios: Sequence[int],
        reductions: Sequence[int],
        depths: Sequence[int],
        num_classes: int,
        in_channels: int = 3,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        self.stages = range(1, len(widths) + 1)
        self.sides = [image_size // 2 ** (stage + 1) for stage in self.stages]
        inputs = in_channels
        for i, stage in enumerate(self.stages):
            width, count = widths[i], self.sides[i] ** 2 + (stage == len(widths))
            self.register_parameter(f"pos_embed{stage}", nn.Parameter(torch.zeros(1, count, width)))
            self.add_module(f"patch_embed{stage}", Embedding(inputs, width, PATCHES[i]))
            attentions = (ReducedAttention(width, heads[i], reductions[i]) for _ in range(depths[i]))
            blocks = (Block(width, heads[i], ratios[i], attention=attention) for attention in attentions)
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            inputs = width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, inputs))
        self.norm = nn.LayerNorm(inputs, EPS)
        self.classify(inputs, num_classes)
        init_linear(self)
        for name, p in self.named_parameters():
            if name.startswith("pos_embed") or name == "cls_token":
                nn.init.trunc_normal_(p, std=0.02)

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images to `Outputs`. Tokens: those of every stage, the last ones normalised."""
        features, taps = images, []
        for stage, side in zip(self.stages, self.sides, strict=True):
            embed, blocks = self.get_submodule(f"patch_embed{stage}"), self.get_submodule(f"block{stage}")
            tokens, grid = embed(features)
            last = stage == len(self.stages)
            if last:
                tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), tokens], 1)
            tokens = tokens + positions(self.get_parameter(f"pos_embed{stage}"), side, grid, extra=int(last))
            for block in blocks.children():
                tokens = block(tokens, *grid)
            if not last:
                taps.append(tokens)
                features = map_of(tokens, grid)
        tokens = self.norm(tokens)
        return Outputs(self.head(tokens[:, 0]), tokens[:, 0], tokens=(*taps, tokens[:, 1:]))
