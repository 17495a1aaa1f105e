"""Teachers of discriminators: networks for single images, which see all that the discriminator is shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distillery.models.base import Network, Outputs
from distillery.study.blocks import Recipe
from distillery.tasks.generation.biggan import Shown
from distillery.tasks.generation.clip import CLIP
from distillery.training.device import autocast


class ShownTeachers:
    """A `TeacherSource` of live networks: no autograd, evaluation mode, the recipe's precision.

    A classifier gets images normalised as the data are; CLIP gets them in [-1, 1], as KD-DLGAN's code gives them.

    Args:
        mean, std: per channel, of the data, in units of full brightness.
    """

    def __init__(
        self, networks: Sequence[Network], recipe: Recipe, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.networks = [network.eval().requires_grad_(False) for network in networks]
        self.recipe, self.mean, self.std = recipe, torch.tensor(mean), torch.tensor(std)

    def rows(self, index: Tensor, view: Tensor, epoch: int, seed: int = 0) -> list[Tensor]:
        return []

    @torch.no_grad()
    def teach(self, inputs: Shown, rows: list[Tensor]) -> tuple[Outputs, ...]:
        images = inputs.images
        mean, std = (values[:, None, None].to(images) for values in (self.mean, self.std))
        normalised = ((images + 1) / 2 - mean) / std
        with autocast(self.recipe, images.device):
            return tuple(network(images if isinstance(network, CLIP) else normalised) for network in self.networks)
