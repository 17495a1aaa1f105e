"""The strong view: every operation equals Pillow's on real pixels; the whole is reproducible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from photographs import photographs
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

from distillery.data import strong
from distillery.data.strong import OPERATIONS, strong_views


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Real pixels, and extreme images: constant, two-valued, noise."""
    rng = np.random.default_rng(0)
    flat = np.broadcast_to(rng.integers(0, 256, (10, 1, 1, 3), dtype=np.uint8), (10, 32, 32, 3))
    two = np.where(rng.random((10, 32, 32, 3)) < 0.1, 255, 3).astype(np.uint8)
    noise = rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    extreme = torch.from_numpy(np.concatenate([flat, two, noise]).transpose(0, 3, 1, 2).copy())
    return torch.cat([photographs(250), extreme])


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda p: p.transform(p.size, Image.Transform.AFFINE, matrix)


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda p, v: ImageOps.autocontrast(p),
    "brightness": lambda p, v: ImageEnhance.Brightness(p).enhance(v),
    "colour": lambda p, v: ImageEnhance.Color(p).enhance(v),
    "contrast": lambda p, v: ImageEnhance.Contrast(p).enhance(v),
    "equalise": lambda p, v: ImageOps.equalize(p),
    "identity": lambda p, v: p,
    "posterise": lambda p, v: ImageOps.posterize(p, int(v)),
    "rotate": lambda p, v: p.rotate(v),
    "sharpness": lambda p, v: ImageEnhance.Sharpness(p).enhance(v),
    "shear_x": lambda p, v: affine(1, v, 0, 0, 1, 0)(p),
    "shear_y": lambda p, v: affine(1, 0, 0, v, 1, 0)(p),
    "solarise": lambda p, v: ImageOps.solarize(p, v),
    "translate_x": lambda p, v: affine(1, 0, v * p.size[0], 0, 1, 0)(p),
    "translate_y": lambda p, v: affine(1, 0, 0, 0, 1, v * p.size[1])(p),
}


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("shape", [(32, 32), (20, 32), (32, 13)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_pillow(name: str, shape: tuple[int, int], images: Tensor) -> None:
    low, high, operation = OPERATIONS[name]
    images = images[:: 1 if shape == (32, 32) else 4, :, : shape[0], : shape[1]].contiguous()
    generator = torch.Generator().manual_seed(len(name))
    magnitude = low + (high - low) * torch.rand(len(images), generator=generator, dtype=torch.float64)
    before = images.clone()
    found = operation(images, magnitude)
    assert found.dtype == torch.uint8 and found.shape == images.shape
    for i, v in enumerate(magnitude.tolist()):
        expected = torch.from_numpy(np.array(PILLOW[name](picture(images[i]), v))).permute(2, 0, 1)
        assert torch.equal(found[i], expected), (i, v)
    assert torch.equal(images, before)
    if name not in ("identity", "equalise", "autocontrast"):
        assert not torch.equal(found, images)


def test_operations_are_those_of_the_protocol() -> None:
    assert OPERATIONS.keys() == PILLOW.keys() and len(OPERATIONS) == 14


@pytest.mark.parametrize("shape", [(32, 32), (20, 32), (32, 13)])
def test_cutout_equals_pillow(shape: tuple[int, int], images: Tensor) -> None:
    images, (height, width) = images[:, :, : shape[0], : shape[1]].contiguous(), shape
    generator = torch.Generator().manual_seed(0)
    side, x, y = torch.rand((3, len(images)), generator=generator, dtype=torch.float64)
    found = strong._cutout(images, side, x, y)
    for i in range(len(images)):
        expected, v = picture(images[i]).copy(), 0.5 * width * side[i].item()
        x0, y0 = (int(max(0, size * c[i].item() - v / 2)) for size, c in ((width, x), (height, y)))
        ImageDraw.Draw(expected).rectangle((x0, y0, min(width, x0 + v), min(height, y0 + v)), (125, 123, 114))
        assert np.array_equal(found[i].permute(1, 2, 0), expected), i


def test_strong_views_are_pure_functions_of_seed_epoch_and_image(images: Tensor) -> None:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    before = images.clone()
    whole = strong_views(images, torch.arange(len(images)), 1, 2)
    torch.manual_seed(5)
    assert torch.equal(strong_views(images, order, 1, 2), whole[order])
    assert torch.equal(strong_views(images, order[:7], 1, 2), whole[order[:7]])
    assert torch.equal(images, before)
    for seed, epoch in [(1, 3), (2, 2), (2, 1)]:
        assert (strong_views(images, order, seed, epoch) != whole[order]).flatten(1).any(1).float().mean() > 0.9


def test_strong_views_change_the_images_but_keep_something_of_them(images: Tensor) -> None:
    real = images[:250]
    seen = strong_views(real, torch.arange(250), 0, 1, pad=0, flip=False)
    assert seen.shape == real.shape and seen.dtype == torch.uint8
    assert (seen != real).flatten(1).any(1).float().mean() > 0.9
    alike = [
        torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1] for a, b in zip(seen, real, strict=True)
    ]
    assert torch.stack(alike).nan_to_num().mean() > 0.3


def test_grey_images_are_colour_images_with_three_equal_channels(images: Tensor) -> None:
    grey, index = images[:100, :1].contiguous(), torch.arange(100)
    colour = strong_views(grey.expand(-1, 3, -1, -1).contiguous(), index, 0, 1)
    assert torch.equal(strong_views(grey, index, 0, 1), colour[:, :1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda_gives_the_same_strong_views(images: Tensor) -> None:
    index = torch.arange(len(images))
    differing = strong_views(images.cuda(), index, 0, 1).cpu() != strong_views(images, index, 0, 1)
    assert differing.float().mean() < 1e-3  # sine and cosine may round differently at the edge between two pixels
