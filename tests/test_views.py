"""Views equal torchvision's random crop and flip on real pixels, come at its frequencies, and can be replayed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from photographs import photographs
from PIL import Image
from torch import Tensor

from distillery.data.views import Views, draw, normalise, order, seed_for

FROZEN = 221_958_894_881  # a sum over all pixels of the 162 views of 162 photographs, as they have always been


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Two hundred images of CIFAR's shape, (200, 3, 32, 32)."""
    return photographs(200)


@pytest.fixture(scope="module")
def digit_images() -> Tensor:
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().images[:20].astype(np.uint8))[:, None]


def torchvision_view(image: Tensor, pad: int, dy: int, dx: int, flip: bool, monkeypatch: Any) -> Tensor:
    """Run torchvision's own transforms on a PIL image, with the outcome of their dice prescribed."""
    size = tuple(image.shape[-2:])
    monkeypatch.setattr(T.RandomCrop, "get_params", staticmethod(lambda *_: (dy, dx, *size)))
    transform = T.Compose([T.RandomCrop(size, padding=pad), T.RandomHorizontalFlip(float(flip))])
    array = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    return torch.from_numpy(np.array(transform(picture)).reshape(*size, -1)).permute(2, 0, 1)


@pytest.mark.parametrize(("pad", "flip", "count"), [(4, True, 162), (1, False, 9), (0, True, 2), (0, False, 1)])
def test_every_view_equals_torchvision(
    pad: int, flip: bool, count: int, digit_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = Views(pad, flip, 8)
    assert views.count == count
    index = torch.arange(count) % len(digit_images)
    taken = views.take(views.pad(digit_images), index, torch.arange(count))
    view = 0
    for dy in range(2 * pad + 1):
        for dx in range(2 * pad + 1):
            for mirrored in (False, True) if flip else (False,):
                expected = torchvision_view(digit_images[index[view]], pad, dy, dx, mirrored, monkeypatch)
                assert torch.equal(taken[view], expected), (dy, dx, mirrored)
                view += 1
    assert view == count


def test_every_view_of_photographs_equals_torchvision(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views(4, True, 32)
    index = torch.arange(162)
    taken = views.take(views.pad(images), index, torch.arange(162))
    for v in range(162):
        dy, dx, mirrored = v // 18, v // 2 % 9, v % 2
        expected = torchvision_view(images[v], 4, dy, dx, bool(mirrored), monkeypatch)
        assert torch.equal(taken[v], expected), (dy, dx, mirrored)


@pytest.mark.parametrize("shape", [(20, 32), (32, 11), (1, 5)])
@pytest.mark.parametrize(("pad", "flip"), [(2, True), (3, False), (0, True)])
def test_every_view_of_images_that_are_not_square_equals_torchvision(
    shape: tuple[int, int], pad: int, flip: bool, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, cut = Views(pad, flip, shape), images[:, :, : shape[0], : shape[1]].contiguous()
    index = torch.arange(views.count)
    taken = views.take(views.pad(cut), index, torch.arange(views.count))
    assert taken.shape == (views.count, 3, *shape)
    for v in range(views.count):
        place, mirrored = divmod(v, 2) if flip else (v, 0)
        expected = torchvision_view(cut[v], pad, *divmod(place, 2 * pad + 1), bool(mirrored), monkeypatch)
        assert torch.equal(taken[v], expected), v
    assert torch.equal(views.take(views.pad(cut), index[:1], torch.tensor([views.identity])), cut[:1])


def test_the_162_views_of_cifar_are_frozen(images: Tensor) -> None:
    views = Views(4, True, 32)
    taken = views.take(views.pad(images[:162]), torch.arange(162), torch.arange(162))
    weights = torch.arange(taken.numel()) % 10_007
    assert int((taken.flatten().long() * weights).sum()) == FROZEN
    assert torch.equal(
        Views(4, True, (32, 32)).take(views.pad(images[:162]), torch.arange(162), torch.arange(162)), taken
    )


@pytest.mark.parametrize("seed", range(20))
def test_torchvisions_own_dice_land_on_a_view(seed: int, images: Tensor) -> None:
    """Nothing prescribed: the transforms draw as they do in training, and their outcome is among the views."""
    image = images[seed]
    torch.manual_seed(seed)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    transformed = T.Compose([T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()])(picture)
    torch.manual_seed(seed)
    dy, dx = (int(torch.randint(0, 40 - 32 + 1, size=(1,))) for _ in range(2))
    mirrored = bool(torch.rand(1) < 0.5)
    views = Views(4, True, 32)
    taken = views.take(views.pad(image[None]), torch.tensor([0]), torch.tensor([(dy * 9 + dx) * 2 + mirrored]))
    assert np.array_equal(taken[0].permute(1, 2, 0), transformed)


@pytest.mark.parametrize(("pad", "flip"), [(4, True), (1, False), (0, True)])
def test_identity_view(pad: int, flip: bool, digit_images: Tensor) -> None:
    views = Views(pad, flip, 8)
    index = torch.arange(len(digit_images))
    assert torch.equal(views.take(views.pad(digit_images), index, torch.full_like(index, views.identity)), digit_images)


def test_take_equals_the_unfold_formulation(images: Tensor) -> None:
    views = Views(4, True, 32)
    padded = views.pad(images)
    generator = torch.Generator().manual_seed(0)
    index, view = (torch.randint(n, (500,), generator=generator) for n in (len(images), views.count))
    dy, dx, mirrored = view // 18, view // 2 % 9, view % 2
    windows = padded.unfold(2, 32, 1).unfold(3, 32, 1)[index, :, dy, dx]
    expected = torch.where(mirrored.bool()[:, None, None, None], windows.flip(-1), windows)
    taken = views.take(padded, index, view)
    assert taken.dtype == torch.uint8 and taken.is_contiguous()
    assert torch.equal(taken, expected)


def test_views_come_at_torchvisions_frequencies() -> None:
    """Chi-square of 50,000 x 20 draws over 162 equally likely views: 161 degrees of freedom, 5 sigma is 161 + 90."""
    counts = sum(draw(0, epoch, 50_000, 162).bincount(minlength=162) for epoch in range(20)).double()
    expected = 50_000 * 20 / 162
    assert ((counts - expected) ** 2 / expected).sum() < 161 + 5 * (2 * 161) ** 0.5
    assert abs(counts[1::2].sum() / counts.sum() - 0.5) < 0.0025


def test_draws_are_pure_functions_of_seed_and_epoch() -> None:
    torch.manual_seed(1)
    first = draw(3, 7, 1000, 162), order(3, 7, 1000)
    torch.manual_seed(2)
    torch.rand(10)
    state = torch.get_rng_state()
    second = draw(3, 7, 1000, 162), order(3, 7, 1000)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)  # and they disturb nobody else's
    assert torch.equal(first[1].sort().values, torch.arange(1000))
    for seed, epoch in [(3, 8), (4, 7), (37, 7), (7, 3)]:
        assert not torch.equal(first[0], draw(seed, epoch, 1000, 162))
        assert not torch.equal(first[1], order(seed, epoch, 1000))
    # Frozen: a study must draw the same tomorrow.
    assert draw(0, 1, 5, 162).tolist() == [84, 148, 94, 131, 45]
    assert order(0, 1, 5).tolist() == [1, 2, 3, 0, 4]
    assert seed_for(0, 1, "views") == 3231274496543414348


def test_seeds_do_not_run_together() -> None:
    assert len({seed_for(*parts) for parts in [(1, 11), (11, 1), (111,), ("1", "1", "1"), (1, 1, 1, 1)]}) == 5
    assert 0 <= min(seed_for(i) for i in range(100)) <= max(seed_for(i) for i in range(100)) < 2**63


def test_normalise_equals_torchvision(images: Tensor) -> None:
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    transform = T.Compose([T.ToTensor(), T.Normalize(mean, std)])
    expected = torch.stack([transform(Image.fromarray(i.permute(1, 2, 0).numpy())) for i in images[:50]])
    before = images[:50].clone()
    found = normalise(images[:50], mean, std, 255.0)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-6
    exact = (before.double() / 255 - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std)[:, None, None]
    assert (normalise(before, mean, std, 255.0, torch.float64) - exact).abs().max() < 1e-6
    assert torch.equal(before, images[:50])


def test_normalise_may_first_run_in_inference_mode() -> None:
    images = torch.ones(1, 1, 2, 2, dtype=torch.uint8)
    with torch.inference_mode():
        normalise(images, (0.123,), (0.456,), 7.0)
    weight = torch.ones(1, requires_grad=True)
    (normalise(images, (0.123,), (0.456,), 7.0) * weight).sum().backward()
    assert weight.grad is not None and torch.isfinite(weight.grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda_graph_takes_the_same_views(digit_images: Tensor) -> None:
    views = Views(1, True, 8)
    padded = views.pad(digit_images)
    generator = torch.Generator().manual_seed(0)
    draws = [[torch.randint(n, (64,), generator=generator) for n in (20, views.count)] for _ in range(3)]
    static = [t.cuda() for t in draws[0]]
    on_device = padded.cuda()

    def batch() -> Tensor:
        return normalise(views.take(on_device, *static), (0.3,), (0.4,), 16.0)

    batch()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = batch()
    for index, view in draws:
        static[0].copy_(index)
        static[1].copy_(view)
        graph.replay()
        expected = normalise(views.take(padded, index, view), (0.3,), (0.4,), 16.0)
        assert (result.cpu() - expected).abs().max() < 1e-6
