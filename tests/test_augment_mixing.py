"""Random erasing, mixup and CutMix: timm's numbers and timm's distributions."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from augmenting import augmentations, normalise, pictures
from scipy import stats
from timm.data.mixup import Mixup as TimmMixup
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing as TimmErasing
from torch import Tensor

from distillery.imaging.draw import Draw
from distillery.imaging.erasing import rectangles
from distillery.imaging.mixing import cut, mixed, soft_targets

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images() -> Tensor:
    return pictures()


# --- erasing ----------------------------------------------------------------------------------------------------------


def boxes_of_timm(size: tuple[int, int], count: int) -> Tensor:
    """Height, width, top and left of what timm erases, one row per image that it erases something of."""
    eraser = TimmErasing(probability=1.0, mode="const", device="cpu")
    random.seed(0)
    found = []
    for _ in range(count):
        erased = (eraser(torch.ones(1, *size)) == 0)[0]
        lines, columns = erased.any(1).nonzero(), erased.any(0).nonzero()
        if len(lines):
            found.append([len(lines), len(columns), lines[0].item(), columns[0].item()])
    return torch.tensor(found)


@pytest.mark.parametrize("size", [(32, 32), (40, 12)])
def test_rectangles_are_distributed_as_timm_draws_them(size: tuple[int, int]) -> None:
    theirs = boxes_of_timm(size, 3000)
    draw = Draw(2, 1, torch.arange(3000))
    masks = rectangles(draw, torch.ones(3000, dtype=torch.int64), 1, size, (0.02, 1 / 3), (0.3, 1 / 0.3))[:, 0]
    some = masks.flatten(1).any(1)
    lines, columns = masks[some].any(2), masks[some].any(1)
    assert torch.equal(masks[some], lines[:, :, None] & columns[:, None, :])
    ours = torch.stack([lines.sum(1), columns.sum(1), lines.int().argmax(1), columns.int().argmax(1)], 1)
    assert abs(len(ours) - len(theirs)) < 60
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_erasing_fills_a_share_of_the_images(mode: str) -> None:
    ours = augmentations({"name": "random_erasing", "prob": 0.3, "mode": mode, "count": [1, 3]})
    images = torch.full((1000, 3, 16, 16), 200, dtype=torch.uint8)
    targets = torch.arange(1000) % 10
    found, same = ours(images, targets, torch.arange(1000), 0, 1)
    gone = found != normalise(images)
    assert torch.equal(same, targets)
    share = gone.flatten(1).any(1)
    assert 0.25 < share.double().mean() < 0.35
    values = found[gone]
    if mode == "const":
        assert (values == 0).all()
    else:
        expected = stats.norm.cdf
        assert stats.kstest(values if mode == "pixel" else values.unique(), expected).pvalue > 0.01
    distinct = [len(image[mask].unique()) for image, mask in zip(found[share], gone[share], strict=True)]
    assert max(distinct) > 200 if mode == "pixel" else max(distinct) == {"rand": 9, "const": 1}[mode]


# --- mixing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_are_those_of_timm(smoothing: float) -> None:
    labels = torch.tensor([3, 0, 6, 6])
    assert torch.equal(soft_targets(labels, 7, smoothing), mixup_target(labels, 7, 1.0, smoothing))
    share = torch.tensor([0.3], dtype=torch.float64)
    assert torch.equal(mixed(soft_targets(labels, 7, smoothing), share), mixup_target(labels, 7, 0.3, smoothing))
    exact = soft_targets(labels, 7, smoothing, torch.float64)
    assert torch.allclose(exact.sum(1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-15)
    logits = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    smoothed = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert torch.allclose(F.cross_entropy(logits, exact), smoothed, rtol=0, atol=1e-14)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.13, 0.0])
def test_mixing_is_that_of_timm_number_for_number(
    share: float, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = normalise(images), torch.arange(len(images)) % 10
    lam = torch.tensor([share], dtype=torch.float64)
    theirs = TimmMixup(mixup_alpha=0.8, cutmix_alpha=0.0, num_classes=10)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (share, False))
    expected = theirs(x.clone(), labels)
    assert torch.equal(mixed(x, lam), expected[0])
    assert torch.equal(mixed(soft_targets(labels, 10, 0.1), lam), expected[1])
    theirs = TimmMixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=10)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (share, True))
    for y, column in ((0, 0), (5, 20), (31, 11), (16, 23)):
        centre = iter((y, column))
        monkeypatch.setattr(np.random, "randint", lambda *a, centre=centre, **k: next(centre))
        expected = theirs(x.clone(), labels)
        found, stayed = cut(x, lam, torch.tensor([y]), torch.tensor([column]))
        assert torch.equal(found, expected[0])
        assert torch.equal(mixed(soft_targets(labels, 10, 0.1), stayed), expected[1])


def shares(targets: Tensor, labels: Tensor) -> Tensor:
    return targets.gather(1, labels[:, None]).squeeze(1)


@pytest.mark.parametrize(("settings", "timm_settings"), [
    ({"name": "mixup", "alpha": 0.8}, {"mixup_alpha": 0.8, "cutmix_alpha": 0.0}),
    ({"name": "cutmix", "alpha": 1.0}, {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}),
    ({"name": "mixup_cutmix", "prob": 0.7, "switch_prob": 0.3}, {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 0.7,
                                                                "switch_prob": 0.3}),
    ({"name": "mixup_cutmix", "mode": "elem"}, {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mode": "elem"}),
    ({"name": "mixup_cutmix", "mode": "pair"}, {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mode": "pair"}),
])  # fmt: skip
def test_shares_are_distributed_as_timm_draws_them(settings: dict[str, Any], timm_settings: dict[str, Any]) -> None:
    """The share of an image in its target, over many batches of four."""
    ours, theirs = augmentations(settings, classes=4), TimmMixup(num_classes=4, label_smoothing=0.0, **timm_settings)
    images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4)
    np.random.seed(0)
    kept, reference = [], []
    for batch in range(400):
        kept.append(shares(ours(images, labels, 4 * batch + labels, 0, 1)[1], labels))
        reference.append(shares(theirs(torch.zeros(4, 1, 8, 8), labels)[1], labels))
    found, expected = torch.stack(kept), torch.stack(reference)
    alike = {"batch": (found == found[:, :1]).all(), "pair": (found == found.flip(1)).all()}
    assert alike.get(settings.get("mode", "batch"), True)
    if settings.get("mode") in ("pair", "elem"):
        assert (found[:, 0] != found[:, 1]).double().mean() > 0.9
    assert stats.ks_2samp(found[:, 0], expected[:, 0]).pvalue > 0.01


def test_cut_images_and_their_targets_agree(images: Tensor) -> None:
    """What is counted of the picture is what stands in the target; an odd batch's middle image meets itself."""
    odd, ours = images[:7], augmentations({"name": "cutmix", "mode": "elem"}, classes=7)
    found, targets = ours(odd, torch.arange(7), torch.arange(7), 3, 1)
    x = normalise(odd)
    own, other = (found == x).all(1), (found == x.flip(0)).all(1)
    assert (own | other).all()
    stayed = 1 - (other & ~own).flatten(1).double().mean(1)
    expected = torch.eye(7) * stayed[:, None] + torch.eye(7).flip(0) * (1 - stayed[:, None])
    assert torch.allclose(targets.double(), expected, atol=1e-6) and targets.dtype == torch.float32
    assert torch.equal(found[3], x[3]) and 0 < stayed.min() < 1


def test_targets_stay_classes_where_nothing_mixes(images: Tensor) -> None:
    ours = augmentations({"name": "color_jitter"}, label_smoothing=0.1)
    labels = torch.arange(len(images)) % 10
    assert ours(images, labels, torch.arange(len(images)), 0, 1)[1] is labels
    assert not ours.soft and augmentations({"name": "mixup"}).soft
