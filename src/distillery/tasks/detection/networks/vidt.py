"""ViDT: Swin with detection tokens, a projection to one width, a deformable decoder, a class and a box head per set.

Song et al. (arXiv:2110.03921, ICLR 2022), as VkD's detection experiments use it: no encoder, boxes refined layer by
layer, each set of tokens with its own heads. Keys are the released ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distillery.objectives.soft import full_precision
from distillery.tasks.detection.detections import Detections, Detector, Pictures
from distillery.tasks.detection.networks.deformable import Transformer
from distillery.tasks.detection.networks.swin_ram import SwinRAM, resized

PRIOR = 0.01  # probability that any class has before training
MAPS = 4  # that the body gives and the decoder looks at


class ViDT(Detector):
    """ViDT.

    Args:
        num_classes: C; 91 for released weights, whose classes are COCO's category numbers.
        width, depths, heads, drop_path: of Swin.
        tokens: detection tokens.
        inner: width of what the decoder sees.
        layers, hidden, decoder_heads, points, dropout: of the decoder; points are those that a head looks at in a map.
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 48,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        drop_path: float = 0.0,
        tokens: int = 100,
        inner: int = 256,
        layers: int = 6,
        hidden: int = 1024,
        decoder_heads: int = 8,
        points: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.transformer = Transformer(inner, decoder_heads, layers, MAPS, points, hidden, dropout)
        self.class_embed = nn.ModuleList(nn.Linear(inner, num_classes) for _ in range(layers + 1))
        self.bbox_embed = self.transformer.decoder.bbox_embed  # the same modules under both names, as released
        self.backbone = SwinRAM(width, depths, heads, drop_path, tokens, inner)
        self.input_proj = nn.ModuleList(_projection(w, inner) for w in self.backbone.widths)
        self.tgt_proj = _projection(self.backbone.widths[-2], inner)
        self.query_pos_proj = _projection(inner, inner)
        for head in self.class_embed:
            nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, pictures: Pictures, preacts: bool = False) -> Detections:  # type: ignore[override]
        maps, tokens = self.backbone(pictures.images, pictures.padding)
        maps = [project(m) for project, m in zip(self.input_proj, maps, strict=True)]
        paddings = [resized(pictures.padding, m.shape[-2:]) for m in maps]
        tokens = _of_tokens(self.tgt_proj, tokens)
        positions = _of_tokens(self.query_pos_proj, self.backbone.det_pos_embed).expand(len(tokens), -1, -1)
        sets, boxes = self.transformer(maps, paddings, tokens, positions)
        classes = torch.stack([head(sets[:, i]) for i, head in enumerate(self.class_embed)], dim=1)
        flat = tuple(m.flatten(2).transpose(1, 2) for m in maps)
        return Detections(torch.cat([full_precision(classes), boxes], dim=-1), maps=tuple(maps), tokens=(*flat, sets))


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, 1)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.GroupNorm(32, outputs))


def _of_tokens(projection: nn.Module, tokens: Tensor) -> Tensor:
    """Project (B, T, C) tokens as if they were pixels of a map: the norm is over tokens too."""
    projected: Tensor = projection(tokens.transpose(1, 2)[..., None])
    return projected[..., 0].transpose(1, 2)
