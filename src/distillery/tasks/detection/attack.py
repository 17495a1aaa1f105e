"""Adversarial twins of training images: small changes that make one teacher's classification loss large (IKD).

DI-MI-FGSM: Xie et al., "Improving transferability of adversarial examples with input diversity" (arXiv:1803.06978, CVPR
2019), with momentum, as IKD's released code has it: only the classification loss counts; the image is sometimes shrunk
to a square and padded to one as wide as it was, while its boxes stay. Released twins are JPEGs of the original size;
here they are lossless, in the size of the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.data.blob import Blob
from distillery.data.views import gain_and_offset, seed_for
from distillery.models.base import Network
from distillery.study.blocks import Recipe
from distillery.tasks.detection import Attack
from distillery.tasks.detection.criterion import anchor_losses, set_losses
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.detections import Detections, Pictures
from distillery.tasks.detection.loader import BoxLoader, of_image
from distillery.tasks.detection.views import View, apply, fitted

Draws = Callable[[int], tuple[int, int, int] | None]  # of a width: side of the square, top, left; None: left alone


def difgsm(image: Tensor, loss: Callable[[Tensor], Tensor], attack: Attack, draws: Draws) -> Tensor:
    """Change an image so that its loss grows.

    Args:
        image: (1, C, H, W) normalised.
        loss: of an image of that width, a scalar.
        draws: the input diversity of a step.

    Returns:
        (1, C, H, W), within eps of the image and within the range of each of its channels.
    """
    low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    widest = (high - low).amax()
    eps, alpha = attack.eps * widest, attack.alpha * widest
    twin, momentum = image.clone(), torch.zeros_like(image)
    for _ in range(attack.steps):
        twin.requires_grad_()
        drawn = draws(image.shape[-1])
        [gradient] = torch.autograd.grad(loss(twin if drawn is None else _padded(twin, *drawn)), twin)
        size = gradient.abs().sum()
        momentum = gradient / torch.where(size > 0, size, 1.0) + attack.momentum * momentum
        twin = twin.detach() + alpha * momentum.sign()
        twin = torch.clamp(image + (twin - image).clamp(-eps, eps), low, high)
    return twin.detach()


def _padded(image: Tensor, side: int, top: int, left: int) -> Tensor:
    """Shrink an image to a square and pad it to one of its width."""
    whole = image.shape[-1]
    small = F.interpolate(image, size=[side, side], mode="bilinear", align_corners=False)
    return F.pad(small, [left, whole - side - left, top, whole - side - top])


def attacked(network: Network, data: BoxData, attack: Attack, report: Callable[[int, int], None]) -> Iterator[Tensor]:
    """The twins of all training images in their order, (3, H, W) uint8 in the size of the test, on the CPU."""
    network.eval().requires_grad_(False)
    loader, blob = BoxLoader(data, Recipe()), Blob(data.blob)
    gain, offset = gain_and_offset(data.mean, data.std, 255.0, torch.float32)
    for row in range(len(data.train)):
        size = fitted(data.train.size(row), data.short_side, data.max_side)
        image, labels, corners = apply(
            View(False, None, None, size), data.image(blob, data.train, row), *data.train.objects(row)
        )
        targets = of_image(labels, corners, size, size, loader.most)[None].to(data.device)
        random = torch.Generator().manual_seed(seed_for("adversarial", row))
        pictures = loader.inputs([image], size)
        twin = difgsm(pictures.images, _loss_of(network, targets), attack, _diversity(attack, random))
        pixels = (twin[0].cpu() - offset) / gain
        report(row + 1, len(data.train))
        yield pixels.round().clamp(0, 255).to(torch.uint8)
    blob.close()


def _loss_of(network: Network, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """The classification loss of one image."""

    def loss(image: Tensor) -> Tensor:
        padding = torch.zeros(1, *image.shape[-2:], dtype=torch.bool, device=image.device)
        found = network(Pictures(image, padding))
        assert isinstance(found, Detections)
        if found.head == "anchors":
            return anchor_losses(found.logits, targets)["class"]
        return set_losses(found.logits, targets, (2.0, 5.0, 2.0), (1.0, 0.0, 0.0))["class"]

    return loss


def _diversity(attack: Attack, random: torch.Generator) -> Draws:
    def draw(width: int) -> tuple[int, int, int] | None:
        low = int(width * attack.resize)
        if low >= width or torch.rand((), generator=random).item() >= attack.diversity:
            return None
        side = int(torch.randint(low, width, (), generator=random))
        top, left = (int(torch.randint(0, width - side, (), generator=random)) for _ in range(2))
        return side, top, left

    return draw
