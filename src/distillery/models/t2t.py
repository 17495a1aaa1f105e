"""T2T-ViT (Yuan et al., arXiv:2101.11986): overlapping patches, which two performer layers gather into tokens.

`t2t_vit_7` is the form of the logit-standardisation paper's code (tiny-transformers); timm has none. There the
performer casts to float32 whatever the precision; here it keeps that of its input.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.models.base import Outputs
from distillery.models.vit import EPS, MLP, Block, VisionTransformer, positions

WIDTH = 64  # of the tokens inside the token-to-token module
SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))  # kernel, stride and padding of its soft splits


class Performer(nn.Module):
    """Linear-time attention by positive random features (Choromanski et al., ICLR 2021), with one head.

    Values take the place of the input, whose width differs. The features' directions `w` are drawn once, orthogonal,
    and never trained.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        count = width // 2
        self.w = nn.Parameter(nn.init.orthogonal_(torch.empty(count, width)) * math.sqrt(count), requires_grad=False)
        self.qkv = nn.Linear(inputs, 3 * width)  # in the order key, query, value, as released
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, inputs) -> (B, N, width)."""
        key, query, value = self.qkv(tokens).chunk(3, -1)
        k, q = self._features(key), self._features(query)
        norm = q @ k.sum(1, keepdim=True).transpose(1, 2) + 1e-8
        out: Tensor = value + self.proj(q @ (k.transpose(1, 2) @ value) / norm)
        return out

    def _features(self, x: Tensor) -> Tensor:
        return torch.exp(x @ self.w.T - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(len(self.w))


class PerformerLayer(nn.Module):
    """A performer without shortcut, for it changes the width, and an MLP with one."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs, EPS)
        self.attn = Performer(inputs, width)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = MLP(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, inputs) -> (B, N, width)."""
        tokens = self.attn(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class TokensToToken(nn.Module):
    """Three soft splits (overlapping windows, each flattened to a token) with a performer layer between."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        inside = [WIDTH * kernel**2 for kernel, _, _ in SPLITS[1:]]
        self.attention = nn.ModuleList(
            PerformerLayer(inputs, WIDTH) for inputs in (channels * SPLITS[0][0] ** 2, inside[0])
        )
        self.proj = nn.Linear(inside[1], width)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, channels, H, W) -> (B, h * w, width) tokens, and their grid (h, w)."""
        features = images
        for i, (kernel, stride, padding) in enumerate(SPLITS):
            grid = [(side + 2 * padding - kernel) // stride + 1 for side in features.shape[-2:]]
            if min(grid) < 1:
                height, width = images.shape[-2:]
                raise DistilleryError(f"images of {height}x{width} are too small for a T2T-ViT: take larger ones")
            tokens = F.unfold(features, kernel, padding=padding, stride=stride).transpose(1, 2)
            if i < len(self.attention):
                features = self.attention[i](tokens).transpose(1, 2).unflatten(2, grid)
        return self.proj(tokens), (grid[0], grid[1])


class T2TViT(VisionTransformer):
    """The token-to-token module, fixed sinusoidal positions, blocks, a head on the class token.

    T2T-ViT-7: width 256, 4 heads, 7 blocks. Images may have any size; the positions are made for `image_size` and
    interpolated for another one.
    """

    def __init__(
        self, width: int, heads: int, depth: int, num_classes: int, in_channels: int = 3, image_size: int = 224
    ) -> None:
        super().__init__()
        self.side = image_size // 16
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(sinusoids(1 + self.side**2, width), requires_grad=False)
        self.t2t_module = TokensToToken(in_channels, width)
        self.blocks = nn.ModuleList(Block(width, heads, ratio=2, bias=False) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPS)
        self.classify(width, num_classes)
        nn.init.normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images to `Outputs`. Tokens: those of the patches, normalised."""
        patches, grid = self.t2t_module(images)
        tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], 1)
        tokens = tokens + positions(self.pos_embed, self.side, grid, extra=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return Outputs(self.head(tokens[:, 0]), tokens[:, 0], tokens=(tokens[:, 1:],))


def sinusoids(count: int, width: int) -> Tensor:
    """(1, count, width): sines and cosines of the position, wavelengths 2 pi to 20,000 pi (Vaswani et al. 2017)."""
    column = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * (column // 2) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()[None]
