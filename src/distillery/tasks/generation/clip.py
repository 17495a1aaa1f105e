"""The image encoder of CLIP ViT-B/32: Radford et al. (arXiv:2103.00020). Weights are a file of the user's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.models.base import Network, Outputs

WIDTH, HEADS, LAYERS, PATCH, SIDE, EMBEDDING = 768, 12, 12, 32, 224, 512


class _Block(nn.Module):
    def __init__(self, quick: bool) -> None:
        super().__init__()
        self.quick = quick
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 4 * WIDTH), "c_proj": nn.Linear(4 * WIDTH, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        h = self.mlp["c_fc"](self.ln_2(x))
        h = h * (1.702 * h).sigmoid() if self.quick else F.gelu(h)
        out: Tensor = x + self.mlp["c_proj"](h)
        return out


class _Visual(nn.Module):
    def __init__(self, quick: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(WIDTH))
        self.positional_embedding = nn.Parameter(torch.zeros((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.proj = nn.Parameter(torch.zeros(WIDTH, EMBEDDING))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*(_Block(quick) for _ in range(LAYERS)))})

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.transformer["resblocks"](self.ln_pre(x))
        out: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return out


class CLIP(Network):
    """(N, 3, H, W) images in [-1, 1] -> pooled: the (N, 512) embedding.

    As KD-DLGAN's code has it, images become 224 pixels wide by repeating pixels and are not normalised by CLIP's own
    mean and deviation. State dicts of OpenAI and OpenCLIP fit; what belongs to texts is left out.

    Args:
        quick: OpenAI's approximate GELU; OpenCLIP's ViT-B-32 has the exact one.
        texts: the file also has `texts`, (K, 512) embeddings of a sentence for each of some classes, which are the
            prototypes of KD-DLGAN's correlated term.
    """

    texts: Tensor

    def __init__(self, num_classes: int, in_channels: int = 3, quick: bool = True, texts: bool = False) -> None:
        super().__init__()
        self.visual, self.has_texts = _Visual(quick), texts
        if texts:
            self.register_buffer("texts", torch.zeros(num_classes, EMBEDDING))

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        images = F.interpolate(images.expand(-1, 3, -1, -1), (SIDE, SIDE), mode="nearest")
        pooled = self.visual(images)
        return Outputs(pooled, pooled)

    def renamed(self, key: str) -> str:
        return key if key.startswith("visual.") or key == "texts" else ""

    @property
    def head(self) -> nn.Linear:
        """A layer whose rows are the texts. Raises ValueError if there are none."""
        if not self.has_texts:
            raise ValueError("CLIP's image encoder has no classes")
        layer = nn.Linear(EMBEDDING, len(self.texts), bias=False)
        layer.weight.data = self.texts
        return layer
