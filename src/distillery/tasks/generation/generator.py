"""A trained generator as a plain module: noise and classes in, images out."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from distillery.errors import DistilleryError
from distillery.models import NETWORKS
from distillery.models.filling import fill
from distillery.records.header import Header
from distillery.records.io import load_tensors
from distillery.tasks.generation.biggan import Discriminator, Generator, in_bytes
from distillery.tasks.weights import chosen


class LoadedGenerator(nn.Module):
    """The averaged generator of a run.

    Attributes:
        network: noise (N, latent) and classes (N,) -> (N, C, H, W) images in (-1, 1).
        metadata: what the file says about itself: study, method, recipe, classes.
    """

    def __init__(self, network: Generator, metadata: Header) -> None:
        super().__init__()
        self.network, self.metadata = network.requires_grad_(False), metadata

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images in (-1, 1)."""
        images: Tensor = self.network(noise, labels)
        return images

    def sample(self, labels: Tensor, seed: int = 0, running: bool = False) -> Tensor:
        """(N, C, H, W) uint8 images of (N,) classes, whose noise depends on the seed alone.

        Args:
            running: normalise by running means, else by the statistics of 50 images at a time, as in the tests while
                training unless `task.sampling` says otherwise.
        """
        known = len(self.metadata.class_names)
        if labels.ndim != 1 or not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < known:
            raise DistilleryError(f"classes are a tensor of whole numbers from 0 to {known - 1}, one for each image")
        weight = self.network.linear.weight
        noise = torch.randn(len(labels), self.network.latent, generator=torch.Generator().manual_seed(seed))
        network = copy.deepcopy(self.network).train(not running)  # a pass moves running means and singular vectors
        return in_bytes(network, noise.to(weight), labels.to(weight.device))


def load_generator(path: Path | str, seed: int | None = None) -> LoadedGenerator:
    """Open the generator of a run: `students.safetensors` of a study of generation, or the folder around it.

    Raises DistilleryError if the file is missing or damaged, holds no generator, several and no seed is given, or not
    that seed.
    """
    path = Path(path).expanduser()
    path = path / "students.safetensors" if path.is_dir() else path
    header = Header.read(path)
    found, begin = NETWORKS[header.architecture], f"{chosen(header, seed, path)}.objective.average."
    weights = {k.removeprefix(begin): v for k, v in load_tensors(path).items() if k.startswith(begin)}
    if header.kind != "students" or not weights or not issubclass(found.load(), Discriminator):
        raise DistilleryError(f"{path} holds no generator: name `students.safetensors` of a study of generation")
    channels, side, _ = header.image
    network = Generator(len(header.class_names), channels, side, width=int(found.options["width"]))
    fill(network, weights, str(path), "does not hold the generator that it describes")
    return LoadedGenerator(network.to(next(iter(weights.values())).dtype).eval(), header)
