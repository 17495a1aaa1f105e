"""A trained detector as a plain module: an image of any size in, boxes with classes and scores out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from distillery.data.views import normalise
from distillery.errors import DistilleryError
from distillery.models.base import anchor
from distillery.models.filling import fill
from distillery.records.header import Header
from distillery.records.io import load_tensors
from distillery.tasks.detection.detections import Detections, Detector, Pictures
from distillery.tasks.detection.drawing import draw
from distillery.tasks.detection.predictions import SURE, found_in
from distillery.tasks.detection.training import build
from distillery.tasks.detection.views import fitted
from distillery.tasks.weights import chosen

WEIGHTS = "model.safetensors"  # in a folder that was exported


class Found(NamedTuple):
    """What was found in an image, the surest first: (n, 4) corners in pixels, (n,) class numbers, (n,) scores."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor


class LoadedDetector(nn.Module):
    """A detector with all that it takes to be used: it resizes and normalises by itself.

    Attributes:
        network: which takes `Pictures`.
        metadata: what the file says about itself: study, method, classes, normalisation, sizes.
    """

    def __init__(self, network: Detector, metadata: Header) -> None:
        super().__init__()
        self.network, self.metadata = network.eval(), metadata

    @torch.no_grad()
    def forward(self, image: Tensor, least: float = SURE) -> Found:
        """Find objects in a (3, H, W) uint8 image; those with a score below `least` are left out."""
        found = self._all(image)
        found = found[(found[:, 4] >= least) & (found[:, 4] > 0)]
        return Found(found[:, :4], found[:, 5].long(), found[:, 4])

    def drawn(self, image: Tensor, least: float = SURE) -> Tensor:
        """The image with what was found in it."""
        return draw(image, self._all(image).cpu(), self.metadata.class_names, least)

    @torch.no_grad()
    def _all(self, image: Tensor) -> Tensor:
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise DistilleryError(f"an image is (3, H, W) uint8, not {tuple(image.shape)} {image.dtype}")
        facts, device = self.metadata, anchor(self.network).device
        size = fitted((image.shape[1], image.shape[2]), facts.image[1], facts.image[2])
        seen = F.resize(image.to(device), [*size], antialias=True)[None]
        pictures = Pictures(
            normalise(seen, facts.mean, facts.std, facts.scale), torch.zeros(1, *size, dtype=torch.bool, device=device)
        )
        outputs = self.network(pictures)
        assert isinstance(outputs, Detections)
        sizes = (torch.tensor([of], dtype=torch.float32, device=device) for of in (size, image.shape[1:]))
        return found_in(outputs, *sizes)[0]


def load_detector(path: Path | str, seed: int | None = None) -> LoadedDetector:
    """Open weights that a study of detectors wrote: students, of which `seed` names one, a teacher, an exported folder.

    Raises DistilleryError if the file is missing or damaged, holds no detector, or not this seed.
    """
    path = Path(path) / WEIGHTS if Path(path).is_dir() else Path(path)
    header, weights = Header.read(path), load_tensors(path)
    if header.kind == "students":
        begin = f"{chosen(header, seed, path)}.student."
        weights = {k.removeprefix(begin): v for k, v in weights.items() if k.startswith(begin)}
    network = build(header.architecture, len(header.class_names))
    fill(network, weights, str(path), "does not hold the detector that it describes")
    return LoadedDetector(network, header)
