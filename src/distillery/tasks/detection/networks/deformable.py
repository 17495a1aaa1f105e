"""The decoder of ViDT: attention of detection tokens to each other and to points of four maps; boxes refined in steps.

Multi-scale deformable attention is that of Deformable DETR (Zhu et al., arXiv:2010.04159, ICLR 2021), in plain torch.
Keys are those of the released code (naver-ai/vidt); `level_embed` is never used there, nor here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.objectives.soft import full_precision


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """log(x / (1 - x)) of values of [0, 1], with both sides at least `eps`."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def sampled(values: Tensor, sizes: Sequence[tuple[int, int]], at: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of values at places of several maps, between pixels bilinearly, outside of them zero.

    Args:
        values: (B, sum of h w, heads, d).
        sizes: (h, w) of every map.
        at: (B, T, heads, maps, points, 2) places, x and y in units of the map's sides.
        weights: (B, T, heads, maps, points).

    Returns:
        (B, T, heads * d).
    """
    b, _, heads, d = values.shape
    tokens = at.shape[1]
    grids = (2 * at - 1).transpose(1, 2).flatten(0, 1)  # (B heads, T, maps, points, 2)
    found = []
    for level, (part, size) in enumerate(zip(values.split([h * w for h, w in sizes], dim=1), sizes, strict=True)):
        picture = part.permute(0, 2, 3, 1).reshape(b * heads, d, *size)
        found.append(between(picture, grids[:, :, level]))
    stacked = torch.stack(found, dim=-2).flatten(-2)  # (B heads, d, T, maps points)
    summed = (stacked * weights.transpose(1, 2).reshape(b * heads, 1, tokens, -1)).sum(-1)
    return summed.view(b, heads * d, tokens).transpose(1, 2)


def between(maps: Tensor, grid: Tensor) -> Tensor:
    """`grid_sample`, bilinear, zero outside: (N, C, h, w) maps at (N, T, P, 2) places of [-1, 1] -> (N, C, T, P).

    Its gradient is not deterministic on CUDA: where that is asked for, pixels are gathered instead.
    """
    if maps.is_cuda and torch.are_deterministic_algorithms_enabled():
        return gathered(maps, grid)
    return F.grid_sample(maps, grid, "bilinear", "zeros", align_corners=False)


def gathered(maps: Tensor, grid: Tensor) -> Tensor:
    """What `between` gives, of four pixels around each place; its gradient is deterministic on every device."""
    n, c, height, width = maps.shape
    x = (grid[..., 0] + 1) * width / 2 - 0.5
    y = (grid[..., 1] + 1) * height / 2 - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    flat, total = maps.flatten(2), maps.new_zeros(n, c, *grid.shape[1:3])
    for column, share in ((left, left + 1 - x), (left + 1, x - left)):
        for row, part in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            at = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            pixels = flat.gather(2, at.flatten(1)[:, None].expand(-1, c, -1)).view_as(total)
            total = total + pixels * (share * part * inside)[:, None]
    return total


class DeformableAttention(nn.Module):
    """Each head of each query looks at a few points of every map, around the query's box."""

    def __init__(self, width: int, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.shape = (heads, levels, points)
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        angle = torch.arange(heads) * (2 * math.pi / heads)
        ring = torch.stack([angle.cos(), angle.sin()], dim=-1)
        ring = (ring / ring.abs().amax(-1, keepdim=True)).view(heads, 1, 1, 2) * torch.arange(1, points + 1)[:, None]
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(ring.expand(heads, levels, points, 2).reshape(-1))
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, query: Tensor, boxes: Tensor, maps: Tensor, sizes: Sequence[tuple[int, int]], padding: Tensor
    ) -> Tensor:
        """Look.

        Args:
            query: (B, T, C).
            boxes: (B, T, maps, 4), centre and size, in units of each map's sides.
            maps: (B, S, C), all maps' pixels; padding: (B, S) true where there is no image.
        """
        heads, levels, points = self.shape
        values = self.value_proj(maps).masked_fill(padding[..., None], 0.0).unflatten(2, (heads, -1))
        offsets = self.sampling_offsets(query).unflatten(2, (heads, levels, points, 2))
        weights = self.attention_weights(query).unflatten(2, (heads, levels * points)).softmax(-1)
        centre, size = boxes[:, :, None, :, None, :2], boxes[:, :, None, :, None, 2:]
        at = centre + offsets / points * size * 0.5
        out: Tensor = self.output_proj(sampled(values, sizes, at, weights.unflatten(3, (levels, points))))
        return out


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, levels: int, points: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.cross_attn = DeformableAttention(width, levels, heads, points)
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, boxes: Tensor, *maps: object) -> Tensor:
        both = x + positions
        x = self.norm2(x + self.dropout(self.self_attn(both, both, x, need_weights=False)[0]))
        x = self.norm1(x + self.dropout(self.cross_attn(x + positions, boxes, *maps)))
        y: Tensor = self.norm3(x + self.dropout(self.linear2(self.dropout(self.linear1(x).relu()))))
        return y


class Mlp(nn.Module):
    """Three layers that give a box."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, outputs) for outputs in (width, width, 4))

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        y: Tensor = last(second(first(x).relu()).relu())
        return y


class Decoder(nn.Module):
    """Layers, and the heads that refine the boxes between them (the detector shares these)."""

    def __init__(self, layers: Sequence[Layer], heads: nn.ModuleList) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.bbox_embed = heads


class Transformer(nn.Module):
    """The decoder with its first reference points.

    Args:
        width: of tokens and maps.
        layers: of the decoder; box heads there are one more, the first for the tokens as they come.
    """

    def __init__(
        self, width: int, heads: int, layers: int, levels: int, points: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        boxes = nn.ModuleList(Mlp(width) for _ in range(layers + 1))
        self.level_embed = nn.Parameter(torch.empty(levels, width))
        self.decoder = Decoder([Layer(width, heads, levels, points, hidden, dropout) for _ in range(layers)], boxes)
        self.reference_points = nn.Linear(width, 2)
        nn.init.normal_(self.level_embed)
        for layer in self.decoder.layers:
            for name, p in layer.named_parameters():
                if p.ndim > 1 and not name.startswith("cross_attn"):
                    nn.init.xavier_uniform_(p)
        nn.init.xavier_uniform_(self.reference_points.weight)
        for number, head in enumerate(boxes):
            last: nn.Linear = head.layers[-1]  # type: ignore[index, assignment]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            if number == 0:
                nn.init.constant_(last.bias[2:], -2.0)

    def forward(
        self, maps: Sequence[Tensor], paddings: Sequence[Tensor], tokens: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Find objects.

        Args:
            maps: (B, C, h, w) each; paddings: (B, h, w) each.
            tokens: (B, T, C); positions: (B, T, C) of the tokens.

        Returns:
            Tokens (B, layers + 1, T, C), first as they came, and their boxes (B, layers + 1, T, 4): centre and size in
            units of the image.
        """
        sizes = [(m.shape[2], m.shape[3]) for m in maps]
        valid = torch.stack([_valid(p) for p in paddings], dim=1)[:, None]  # (B, 1, maps, 2)
        flat = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        padding = torch.cat([p.flatten(1) for p in paddings], dim=1)
        heads = self.decoder.bbox_embed
        point = full_precision(self.reference_points(positions)).sigmoid()
        start = F.pad(inverse_sigmoid(point), (0, 2))  # of sizes nothing is known yet
        sets, boxes = [tokens], [(full_precision(heads[0](tokens)) + start).sigmoid()]
        for layer, head in zip(self.decoder.layers, list(heads)[1:], strict=True):
            reference = boxes[-1].detach()
            at = reference[:, :, None] * torch.cat([valid, valid], dim=-1)
            sets.append(layer(sets[-1], positions, at, flat, sizes, padding))
            boxes.append((full_precision(head(sets[-1])) + inverse_sigmoid(reference)).sigmoid())
        return torch.stack(sets, dim=1), torch.stack(boxes, dim=1)


def _valid(padding: Tensor) -> Tensor:
    """The shares of width and height that are image, (B, 2), of (B, h, w)."""
    rows, columns = (~padding[:, :, 0]).sum(1), (~padding[:, 0, :]).sum(1)
    return torch.stack([columns / padding.shape[2], rows / padding.shape[1]], dim=-1)
