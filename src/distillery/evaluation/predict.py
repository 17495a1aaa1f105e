"""The logits of a trained network on the test set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.models.base import Network, Outputs
from distillery.study.blocks import Recipe
from distillery.training.device import autocast, dtype_of


@torch.no_grad()
def test_logits(
    network: Network,
    data: Dataset,
    recipe: Recipe,
    predict: Callable[[Outputs], Tensor] = lambda outputs: outputs.logits,
    batch_size: int = 1000,
) -> Tensor:
    """Return the (N, C) float32 logits of all test images, on the CPU.

    Batches, precision and evaluation mode are those of the test passes while training, so that the accuracy of the
    last epoch comes out the same to the last image. `predict` picks the logits a method is judged by.
    """
    device = data.test_images.device
    network = network.to(device, dtype_of(recipe)).eval()
    parts = []
    for images in data.test_images.split(batch_size):
        with autocast(recipe, device):
            parts.append(predict(network(data.normalise(images).to(dtype_of(recipe)))).float().cpu())
    return torch.cat(parts)
