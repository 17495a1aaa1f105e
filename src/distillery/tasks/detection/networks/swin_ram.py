"""Swin with reconfigured attention: patches attend in windows, detection tokens to each other and, last, to patches.

ViDT: Song et al., "ViDT: an efficient and effective fully transformer-based object detector" (arXiv:2110.03921, ICLR
2022), section 3, on Swin (Liu et al., arXiv:2103.14030). Keys are those of the released code (naver-ai/vidt): released
Swin and ViDT weights load; `norm1` to `norm3` and a merging's `expansion` and `norm2` are dead weights there and
here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.vit import DropPath

FAR = -100.0  # added to the logits of pairs that may not attend to each other, as Swin does


@dataclass(frozen=True, slots=True)
class Grid:
    """What the blocks of one stage share, whatever their weights.

    Attributes:
        height, width: of the map of patches.
        shifted: (windows, 49, 49) mask of shifted windows.
        position: (B, H, W, C) sines of the patches, of valid ones counted; None where detection tokens do not look at
            patches.
        unseen: (B, 1, 1, H W + tokens) mask of patches that are padding; None likewise.
    """

    height: int
    width: int
    shifted: Tensor
    position: Tensor | None = None
    unseen: Tensor | None = None


def sine_positions(padding: Tensor, width: int) -> Tensor:
    """Sines and cosines of the place among the valid patches: (B, H, W) true where padded -> (B, H, W, width) float32.

    Half of the channels for the row, half for the column, each scaled to 2 pi at the last valid one (DETR).
    """
    half, valid = width // 2, ~padding
    rows, columns = valid.cumsum(1).float(), valid.cumsum(2).float()  # of whole numbers: the same on every device
    rows = rows / (rows[:, -1:] + 1e-6) * 2 * math.pi
    columns = columns / (columns[:, :, -1:] + 1e-6) * 2 * math.pi
    at = torch.arange(half, dtype=torch.float32, device=padding.device)
    period = 10000 ** (2 * (at // 2) / half)
    parts = []
    for place in (rows, columns):
        phase = place[..., None] / period
        parts.append(torch.stack((phase[..., 0::2].sin(), phase[..., 1::2].cos()), dim=4).flatten(3))
    return torch.cat(parts, dim=3)


def windows(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C), whose sides are multiples of `size` -> (B * windows, size * size, C)."""
    b, height, width, c = x.shape
    x = x.view(b, height // size, size, width // size, size, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)


def joined(parts: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `windows`: (B * windows, size * size, C) -> (B, H, W, C)."""
    x = parts.view(-1, height // size, width // size, size, size, parts.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, parts.shape[-1])


class Attention(nn.Module):
    """Reconfigured attention: one qkv and one projection for patches and detection tokens."""

    relative_position_index: Tensor

    def __init__(self, width: int, window: int, heads: int) -> None:
        super().__init__()
        self.window, self.heads, self.scale = window, heads, (width // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None, :] + window - 1
        self.register_buffer("relative_position_index", apart[0] * (2 * window - 1) + apart[1])
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, patches: Tensor, tokens: Tensor, mask: Tensor | None, grid: Grid, seen: Tensor | None) -> Tensor:
        """Attend.

        Args:
            patches: (B, H', W', C), padded to whole windows, perhaps shifted.
            tokens: (B, T, C) detection tokens with their positions.
            mask: (windows, 49, 49) of shifted windows.
            seen: (B, H, W, C) patches with positions that tokens attend to as well, in the last stage.

        Returns:
            (B, H' W' + T, C).
        """
        b, height, width, c = patches.shape
        found = windows(self.qkv(patches), self.window).view(-1, self.window**2, 3, self.heads, c // self.heads)
        q, k, v = found.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        logits = (q * self.scale) @ k.transpose(-2, -1) + bias
        if mask is not None:
            logits = (logits.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)
        out = joined((logits.softmax(-1) @ v).transpose(1, 2).flatten(2), self.window, height, width)

        q, k, v = self.qkv(tokens).view(b, -1, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if seen is not None:
            theirs = self.qkv(seen).view(b, -1, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            k, v = torch.cat([theirs[1], k], dim=2), torch.cat([theirs[2], v], dim=2)
        logits = (q * self.scale) @ k.transpose(-2, -1)
        if grid.unseen is not None:
            logits = logits + grid.unseen
        tokens = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        attended: Tensor = self.proj(torch.cat([out.flatten(1, 2), tokens], dim=1))
        return attended


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """A Swin block that carries detection tokens along."""

    def __init__(self, width: int, heads: int, window: int, shift: int, drop_path: float, positions: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, window, heads)
        self.drop_path = DropPath()
        self.drop_path.drop_prob = drop_path
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.det_pos_linear = nn.Linear(positions, width)

    def forward(self, x: Tensor, positions: Tensor, grid: Grid) -> Tensor:
        """(B, H W + T, C) patches and tokens in and out; `positions` (1, T, P) of the tokens."""
        height, width, count = grid.height, grid.width, grid.height * grid.width
        normed = self.norm1(x)
        patches, tokens = normed[:, :count].unflatten(1, (height, width)), normed[:, count:]
        seen = None if grid.position is None else patches + grid.position.to(patches.dtype)
        patches = F.pad(patches, (0, 0, 0, -width % self.window, 0, -height % self.window))
        whole = patches.shape[1:3]
        if self.shift:
            patches = patches.roll((-self.shift, -self.shift), (1, 2))
        tokens = tokens + self.det_pos_linear(positions)
        attended = self.attn(patches, tokens, grid.shifted if self.shift else None, grid, seen)
        patches, tokens = attended[:, : whole[0] * whole[1]].unflatten(1, whole), attended[:, whole[0] * whole[1] :]
        if self.shift:
            patches = patches.roll((self.shift, self.shift), (1, 2))
        patches = patches[:, :height, :width].flatten(1, 2)
        x = x + self.drop_path(torch.cat([patches, tokens], dim=1))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


class Merging(nn.Module):
    """Four neighbouring patches become one; a detection token meets the same weights four times repeated."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, outputs, bias=False)
        self.norm = nn.LayerNorm(4 * width)
        self.expansion = nn.Linear(width, outputs, bias=False)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(B, H W + T, C) -> (B, ceil(H / 2) ceil(W / 2) + T, outputs)."""
        patches, tokens = x[:, : height * width].unflatten(1, (height, width)), x[:, height * width :]
        patches = F.pad(patches, (0, 0, 0, width % 2, 0, height % 2))
        four = [patches[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        merged = torch.cat([torch.cat(four, dim=-1).flatten(1, 2), tokens.repeat(1, 1, 4)], dim=1)
        y: Tensor = self.reduction(self.norm(merged))
        return y


class Stage(nn.Module):
    def __init__(
        self, width: int, heads: int, window: int, drop_path: Sequence[float], positions: int, outputs: int
    ) -> None:
        super().__init__()
        self.width, self.window = width, window
        self.blocks = nn.ModuleList(
            Block(width, heads, window, window // 2 * (i % 2), rate, positions) for i, rate in enumerate(drop_path)
        )
        self.downsample = Merging(width, outputs)

    def grid(self, height: int, width: int, tokens: int, padding: Tensor | None, device: torch.device) -> Grid:
        """What the blocks share; with `padding` (B, h, w) tokens look at patches."""
        area = torch.zeros(1, height + -height % self.window, width + -width % self.window, 1, device=device)
        shift, size = self.window // 2, self.window
        cuts = (slice(0, -size), slice(-size, -shift), slice(-shift, None))
        for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
            area[:, rows, columns] = number
        parts = windows(area, size).squeeze(-1)
        shifted = (parts[:, None] != parts[:, :, None]) * FAR
        if padding is None:
            return Grid(height, width, shifted)
        if padding.shape[1:] != (height, width):
            padding = resized(padding, (height, width))
        unseen = F.pad(padding.flatten(1)[:, None, None] * FAR, (0, tokens))
        return Grid(height, width, shifted, sine_positions(padding, self.width), unseen)


def resized(padding: Tensor, size: Sequence[int]) -> Tensor:
    """The (B, H, W) mask of padding at another size, by the nearest pixel."""
    return F.interpolate(padding[None].float(), size=[*size]).bool()[0]


class Embedding(nn.Module):
    """Patches of 4 x 4 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, ceil(H / 4), ceil(W / 4), width)."""
        images = F.pad(images, (0, -images.shape[3] % 4, 0, -images.shape[2] % 4))
        x: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return x


class SwinRAM(nn.Module):
    """The body: maps of patches of stages 2 to 4 and of one more merging, and the detection tokens.

    Args:
        width: of the first stage.
        tokens: detection tokens, the most objects that can be found.
        positions: width of the tokens' position codes and of the fourth map.
    """

    def __init__(
        self,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        drop_path: float,
        tokens: int,
        positions: int,
        window: int = 7,
    ) -> None:
        super().__init__()
        self.det_token = nn.Parameter(torch.zeros(1, tokens, width))
        self.det_pos_embed = nn.Parameter(torch.zeros(1, tokens, positions))
        self.patch_embed = Embedding(width)
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(list(depths))
        widths = [width * 2**i for i in range(len(depths))]
        self.layers = nn.ModuleList(
            Stage(w, h, window, r.tolist(), positions, outputs)
            for w, h, r, outputs in zip(widths, heads, rates, [*widths[1:], positions], strict=True)
        )
        for i in range(1, len(depths)):
            self.add_module(f"norm{i}", nn.LayerNorm(widths[i]))
        self.widths = (*widths[1:], positions)
        nn.init.trunc_normal_(self.det_token, std=0.02)
        nn.init.trunc_normal_(self.det_pos_embed, std=0.02)

    def forward(self, images: Tensor, padding: Tensor) -> tuple[list[Tensor], Tensor]:
        """Look at images.

        Args:
            images: (B, 3, H, W).
            padding: (B, H, W), true where there is no image.

        Returns:
            Four maps (B, C, h, w) of strides 8 to 64, and the tokens after the last stage, (B, T, C).
        """
        patches = self.patch_embed(images)
        height, width = patches.shape[1:3]
        tokens = self.det_token.expand(len(images), -1, -1)
        count, last = tokens.shape[1], len(self.layers) - 1
        # As released: reduced to an eighth of the patches first, whatever the last stage's size is.
        padding = resized(padding, (max(height // 8, 1), max(width // 8, 1)))
        x, maps = torch.cat([patches.flatten(1, 2), tokens], dim=1), []
        for number, stage in enumerate(self.layers):
            grid = stage.grid(height, width, count, padding if number == last else None, x.device)  # type: ignore[operator]
            for block in stage.blocks:  # type: ignore[union-attr]
                x = block(x, self.det_pos_embed, grid)
            if number > 0:
                maps.append(x[:, :-count].unflatten(1, (height, width)).permute(0, 3, 1, 2))
            tokens = x[:, -count:]
            x = stage.downsample(x, height, width)  # type: ignore[operator]
            height, width = (height + 1) // 2, (width + 1) // 2
        maps.append(x[:, :-count].unflatten(1, (height, width)).permute(0, 3, 1, 2))
        return maps, tokens
