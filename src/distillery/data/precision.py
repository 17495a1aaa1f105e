"""What a recipe's precision and layout mean to torch."""

from __future__ import annotations

import torch

from distillery.study.blocks import Recipe


def dtype_of(recipe: Recipe) -> torch.dtype:
    """The type of weights and inputs (bfloat16 is autocast over float32 weights)."""
    return torch.float64 if recipe.precision == "float64" else torch.float32


def memory_format(recipe: Recipe) -> torch.memory_format:
    """The layout of images and convolution weights."""
    return torch.channels_last if recipe.channels_last else torch.contiguous_format
