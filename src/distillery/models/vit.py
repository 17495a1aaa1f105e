"""What the vision transformers share: blocks, stochastic depth, positions for any image size. Keys as in timm."""

from __future__ import annotations

import re
from functools import cache
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.models.base import Network

EPS = 1e-6  # of all layer normalisations, as the released codes have it
# What the code of the logit-standardisation paper (tiny-transformers, after pycls) calls the parts, and timm.
TINY_TRANSFORMERS = (
    (re.compile(r"^layers\."), "blocks."),
    (re.compile(r"\.qkv_transform\."), ".qkv."),
    (re.compile(r"\.projection\."), ".proj."),
    (re.compile(r"^distill_token$"), "dist_token"),
    (re.compile(r"^distill_head\."), "head_dist."),
)


class VisionTransformer(Network):
    """Base of the vision transformers: a linear classifier `head`, and no feature maps but tokens."""

    @property
    def head(self) -> nn.Linear:
        """The linear layer on the class token."""
        return cast(nn.Linear, self._modules["head"])

    def classify(self, width: int, num_classes: int, name: str = "head") -> nn.Linear:
        """Make a linear classifier and call it `name`."""
        self._modules[name] = made = nn.Linear(width, num_classes)  # not by attribute: `head` is a property
        return made

    def renamed(self, key: str) -> str:
        """The name here of what a checkpoint of tiny-transformers calls `key`."""
        for pattern, name in TINY_TRANSFORMERS:
            key = pattern.sub(name, key)
        return key


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): in training, drops the branch of a whole image and scales the others.

    Attributes:
        drop_prob: share of images whose branch is dropped, 0 to start with. A network has one such module a block, in
            the order of depth; the released codes let the rate rise linearly over them, from 0.
    """

    drop_prob: float = 0.0

    def forward(self, branch: Tensor) -> Tensor:
        """Map (B, ...) to the same shape, with the same mean."""
        if not self.training or self.drop_prob == 0.0:
            return branch
        keep = 1.0 - self.drop_prob
        kept = branch.new_empty(len(branch), *(1 for _ in branch.shape[1:])).bernoulli_(keep)
        return branch * (kept / keep)


class Attention(nn.Module):
    """Multi-head self-attention of (B, N, width) tokens."""

    def __init__(self, width: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the projected mix of values, (B, N, width)."""
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return mixed


class MLP(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, width) to the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to its input.

    Args:
        attention: what stands in for plain self-attention; it may take more than the tokens.
    """

    def __init__(
        self, width: int, heads: int, ratio: int = 4, bias: bool = True, attention: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = attention or Attention(width, heads, bias)
        self.drop_path = DropPath()
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = MLP(width, ratio * width)

    def forward(self, tokens: Tensor, *grid: int) -> Tensor:
        """Map (B, N, width) to the same shape; `grid`: height and width of the tokens, if the attention asks for it."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), *grid))
        out: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return out


class Patches(nn.Module):
    """A convolution that turns square patches of an image or map into tokens."""

    def __init__(self, inputs: int, width: int, size: int, stride: int | None = None) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, width, size, stride or size)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, h, w)."""
        return cut(self.proj, features)


def cut(layer: nn.Conv2d, features: Tensor) -> Tensor:
    """A convolution's output. Raises DistilleryError for a map smaller than its kernel."""
    if min(features.shape[-2:]) < (size := layer.kernel_size[0]):
        height, width = features.shape[-2:]
        raise DistilleryError(
            f"a map of {height}x{width} is smaller than a patch, {size}x{size}: take larger images, or a network with "
            "smaller patches"
        )
    out: Tensor = layer(features)
    return out


def tokens_of(features: Tensor) -> Tensor:
    """(B, width, h, w) map to (B, h * w, width) tokens, row by row."""
    return features.flatten(2).transpose(1, 2)


def map_of(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h * w, width) tokens to the (B, width, h, w) map."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def positions(embedding: Tensor, side: int, grid: tuple[int, int], extra: int = 0) -> Tensor:
    """Position embeddings for a grid of any size: those of the square grid they are made for, interpolated.

    Bicubic interpolation, as usual where a vision transformer sees images of another size (timm, DINOv2), written as a
    product with a constant matrix: the gradient of torch's own is not deterministic on CUDA.

    Args:
        embedding: (1, extra + side * side, width).
        side: of the grid that they are made for.
        grid: height and width of the tokens at hand.
        extra: tokens without a place (class, distillation); theirs are left as they are.

    Returns:
        (1, extra + grid[0] * grid[1], width), the embedding itself if the grid is the one it is made for.
    """
    if grid == (side, side):
        return embedding
    # What is built while a program is exported belongs to that program.
    build = _resampling.__wrapped__ if torch.compiler.is_compiling() else _resampling
    matrix = build(side, grid, embedding.dtype, embedding.device)
    return torch.cat([embedding[:, :extra], matrix @ embedding[:, extra:]], 1)


@cache  # without bound: captured graphs read these
def _resampling(side: int, grid: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(grid[0] * grid[1], side * side): what a bicubic interpolation multiplies by.

    Kept for every device, since a captured graph cannot copy it there.
    """
    rows, columns = (_cubic(side, count) for count in grid)
    with torch.inference_mode(False):  # the kept matrix outlives a caller in that mode
        return torch.from_numpy(np.kron(rows, columns)).to(device, dtype)


def _cubic(side: int, count: int) -> np.ndarray:
    """(count, side): cubic convolution along one axis with A = -0.75, as torch has it; the border is repeated."""
    at = (np.arange(count) + 0.5) * side / count - 0.5
    first = np.floor(at).astype(int)
    weights = np.zeros((count, side))
    for tap in (-1, 0, 1, 2):
        d = np.abs(at - first - tap)
        near, far = (1.25 * d - 2.25) * d * d + 1, ((-0.75 * d + 3.75) * d - 6) * d + 3
        np.add.at(weights, (np.arange(count), np.clip(first + tap, 0, side - 1)), np.where(d <= 1, near, far))
    return weights


def init_linear(network: nn.Module, std: float = 0.02) -> None:
    """Initialise all linear layers: weights N(0, std squared), truncated at 2, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
