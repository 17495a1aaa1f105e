"""DeiT (Touvron et al., arXiv:2012.12877): a plain vision transformer, with or without a distillation token.

`deit_ti` and `deit_ti_distilled` are timm's deit_tiny(_distilled)_patch16_224 and those of the logit-standardisation
paper's code (tiny-transformers). `vkd_deit_ti` and `vkd_deit_s` are VkD's (arXiv:2403.06213): a convolutional stem, and
a distillation token that is no parameter but the mean of the patch embeddings.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from distillery.models.base import Outputs
from distillery.models.layers import conv
from distillery.models.vit import EPS, Block, Patches, VisionTransformer, cut, init_linear, positions, tokens_of


class DeiT(VisionTransformer):
    """Patches, blocks, a normalisation, a linear head on the class token and perhaps one on the distillation token.

    Images may have any size that holds a patch; the position embeddings are interpolated for all but `image_size`.

    Args:
        width, heads, depth: 192, 3, 12 (Ti) or 384, 6, 12 (S).
        distilled: whether there are a distillation token and its head.
        patch: side of the patches in pixels.
        image_size: side in pixels that the position embeddings are made for.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        num_classes: int,
        in_channels: int = 3,
        depth: int = 12,
        distilled: bool = False,
        patch: int = 16,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        self.side = image_size // patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + distilled + self.side**2, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width)) if distilled else None
        self.patch_embed = Patches(in_channels, width, patch)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPS)
        init_linear(self)
        heads_ = [self.classify(width, num_classes, name) for name in ("head", "head_dist")[: 1 + distilled]]
        for head in heads_:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        for token in (self.cls_token, self.pos_embed, self.dist_token):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)

    def embed(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) -> the (B, width, h, w) patch embeddings."""
        return self.patch_embed(images)

    def leading(self, patches: Tensor) -> list[Tensor]:
        """The tokens before the (B, N, width) patch embeddings: class, and distillation if there is one."""
        given = [self.cls_token] if self.dist_token is None else [self.cls_token, self.dist_token]
        return [token.expand(patches.shape[0], -1, -1) for token in given]

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images to `Outputs`.

        Tokens: those of the patches, normalised. Pooled: the class token, normalised. With a distillation head the
        logits are those of the class head in training, and the mean of both heads in evaluation.
        """
        features = self.embed(images)
        patches = tokens_of(features)
        leading = self.leading(patches)
        extra, grid = len(leading), (features.shape[-2], features.shape[-1])
        tokens = torch.cat([*leading, patches], 1) + positions(self.pos_embed, self.side, grid, extra)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        logits, distilled = self.head(tokens[:, 0]), None
        if extra == 2:
            distilled = cast(nn.Linear, self.head_dist)(tokens[:, 1])
            logits = logits if self.training else (logits + distilled) / 2
        return Outputs(logits, tokens[:, 0], tokens=(tokens[:, extra:],), distilled=distilled)


class ConvolutionalStem(nn.Module):
    """7x7 with stride 2 and two 3x3 convolutions, 64 channels each, normalised, ReLU; then patches of 8x8."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        layers = [conv(inputs, 64, 7, 2), conv(64, 64, 3), conv(64, 64, 3)]
        self.conv = nn.Sequential(*(part for layer in layers for part in (layer, nn.BatchNorm2d(64), nn.ReLU(True))))
        self.proj = nn.Conv2d(64, width, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H / 16, W / 16)."""
        return cut(self.proj, self.conv(images))


class VkDDeiT(DeiT):
    """VkD's form: a convolutional stem, and the mean of the patch embeddings as distillation token."""

    def __init__(
        self,
        width: int,
        heads: int,
        num_classes: int,
        in_channels: int = 3,
        depth: int = 12,
        image_size: int = 224,
    ) -> None:
        super().__init__(width, heads, num_classes, in_channels, depth, distilled=True, image_size=image_size)
        del self.patch_embed, self.dist_token
        self.conv_embed = ConvolutionalStem(in_channels, width)
        self._modules["head_dist"] = self._modules.pop("head_dist")  # the released order of weights
        init_linear(self)  # the heads too, which timm's base class does not set to zero

    def embed(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) -> the (B, width, h, w) patch embeddings."""
        return self.conv_embed(images)

    def leading(self, patches: Tensor) -> list[Tensor]:
        """Class token, and the mean of the (B, N, width) patch embeddings."""
        return [self.cls_token.expand(patches.shape[0], -1, -1), patches.mean(1, keepdim=True)]
