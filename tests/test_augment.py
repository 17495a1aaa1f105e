"""Augmentations of a recipe: timm's and torchvision's own numbers and pixels; replay; what is refused; identity."""

from __future__ import annotations

import math
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from photographs import photographs
from PIL import Image, ImageFilter, ImageOps
from scipy import stats
from small_study import STUDY, make, write
from timm.data import auto_augment as timm_auto
from timm.data.mixup import Mixup as TimmMixup
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing as TimmErasing
from torch import Tensor
from torchvision.transforms import ColorJitter, autoaugment
from torchvision.transforms import RandAugment as TorchvisionRandAugment
from torchvision.transforms import functional as tv
from torchvision.transforms.functional import InterpolationMode

from distillery.data.augment import Augmentations
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.imaging import policy
from distillery.imaging.blur import gaussian_blur
from distillery.imaging.draw import Draw
from distillery.imaging.erasing import rectangles
from distillery.imaging.mixing import cut, mixed, soft_targets
from distillery.imaging.policy import NAMES, changed, colour_jitter, interpolating, perform
from distillery.imaging.randaugment import of_timm, timm_arguments, torchvision_arguments
from distillery.objectives import OBJECTIVES
from distillery.objectives.base import Batch
from distillery.objectives.plugins import PLUGINS
from distillery.pipeline import fingerprint as code
from distillery.pipeline.check import check, rehearse
from distillery.pipeline.fingerprint import components, fingerprint
from distillery.pipeline.planner import named_files, resolve
from distillery.recipe import AUGMENTATIONS
from distillery.records.io import read_json
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import set_up
from distillery.training.loop import Preempted, fit

SIZE = (32, 24)
MEAN_COLOUR = (124, 116, 104)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Real pixels, and extreme images: constant, two-valued, noise; not square."""
    rng = np.random.default_rng(0)
    flat = np.broadcast_to(rng.integers(0, 256, (4, 1, 1, 3), dtype=np.uint8), (4, 32, 32, 3))
    two = np.where(rng.random((4, 32, 32, 3)) < 0.1, 255, 3).astype(np.uint8)
    noise = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    extreme = torch.from_numpy(np.concatenate([flat, two, noise]).transpose(0, 3, 1, 2).copy())
    return torch.cat([photographs(48), extreme])[..., : SIZE[0], : SIZE[1]].contiguous()


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def augmentations(*then: dict[str, Any], classes: int = 10, **recipe: Any) -> Augmentations:
    return Augmentations(Recipe(augmentation={"then": then}, **recipe), classes, normalise)


def normalise(images: Tensor) -> Tensor:
    return images.float() / 255 - 0.5


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_numbers_depend_on_key_epoch_and_image_alone() -> None:
    index = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    whole = Draw(7, 3, torch.arange(1000))
    expected, later = whole.uniform(5), whole.normal(2)
    torch.manual_seed(4)
    again = Draw(7, torch.tensor(3.0), index[:99])
    assert torch.equal(again.uniform(5), expected[index[:99]]) and torch.equal(again.normal(2), later[index[:99]])
    for key, epoch in ((8, 3), (7, 4), (7 + 2**62, 3)):
        assert not torch.equal(Draw(key, epoch, torch.arange(1000)).uniform(5), expected)


def test_numbers_are_independent_over_images_calls_epochs_and_keys() -> None:
    """Neighbours in every one of them are neither equal nor correlated."""
    drawn = torch.stack(
        [Draw(key, epoch, torch.arange(1000)).uniform(10) for key in range(4) for epoch in range(1, 6)]
    ).reshape(4, 5, 1000, 10)
    assert len(drawn.unique()) == drawn.numel()
    for axis in range(4):
        some, others = drawn.narrow(axis, 1, drawn.shape[axis] - 1), drawn.narrow(axis, 0, drawn.shape[axis] - 1)
        both = torch.stack([some.flatten(), others.flatten()])
        assert abs(torch.corrcoef(both)[0, 1]) < 4 / math.sqrt(both.shape[1])
    assert stats.kstest(drawn.flatten(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    share = Draw(1, 1, torch.arange(50_000)).beta(alpha)
    assert share.dtype == torch.float64 and ((share >= 0) & (share <= 1)).all()
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_shares_of_a_tiny_alpha_are_finite() -> None:
    share = Draw(1, 1, torch.arange(1000)).beta(1e-3)
    assert share.isfinite().all() and 0.4 < share.mean() < 0.6


def test_other_numbers_have_their_distributions() -> None:
    draw = Draw(3, 2, torch.arange(50_000))
    assert stats.kstest(draw.normal(), "norm").pvalue > 0.01
    assert draw.normal(dtype=torch.float32).dtype == torch.float32
    counts = draw.below(7).bincount()
    assert len(counts) == 7 and stats.chisquare(counts).pvalue > 0.01
    limits = torch.tensor([1, 5]).expand(50_000, 2)
    assert draw.below(limits, 2).amax(0).tolist() == [0, 4]


# --- pixels -----------------------------------------------------------------------------------------------------------

FILLED = {"fillcolor": MEAN_COLOUR, "resample": Image.Resampling.BICUBIC}
# Name: timm's function and an argument of it, ours where it is another one.
TIMM: dict[str, tuple[str, list[float]]] = {
    "autocontrast": ("AutoContrast", []),
    "equalise": ("Equalize", []),
    "invert": ("Invert", []),
    "posterise": ("Posterize", [1, 2, 4]),
    "solarise": ("Solarize", [0, 26, 128, 256]),
    "solarise_add": ("SolarizeAdd", [0, 60, 110]),
    "brightness": ("Brightness", [0.1, 0.55, 1.0, 1.9]),
    "colour": ("Color", [0.1, 0.55, 1.0, 1.9]),
    "contrast": ("Contrast", [0.1, 0.55, 1.0, 1.9]),
    "sharpness": ("Sharpness", [0.1, 0.55, 1.0, 1.9]),
    "rotate": ("Rotate", [-30, -3.7, 0, 25.2]),
    "shear_x": ("ShearX", [-0.3, 0.0, 0.27]),
    "shear_y": ("ShearY", [-0.3, 0.0, 0.27]),
    "translate_x": ("TranslateXRel", [-0.45, 0.25, 0.405]),
    "translate_y": ("TranslateYRel", [-0.45, 0.25, 0.405]),
}


def test_every_operation_is_compared_with_timm() -> None:
    assert {"identity", *TIMM} == set(NAMES)
    assert {name for name, _ in TIMM.values()} == {*timm_auto._RAND_TRANSFORMS}


@pytest.mark.parametrize("cubic", [True, False])
@pytest.mark.parametrize("name", TIMM)
def test_operations_are_those_of_timm_pixel_for_pixel(name: str, cubic: bool, images: Tensor) -> None:
    """Where interpolation meets a whole number but for the last bit, one grey level may lie between."""
    theirs, arguments = TIMM[name]
    resample = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    before, moved = images.clone(), False
    for argument in arguments or [None]:
        value = torch.full((len(images),), argument or 0.0, dtype=torch.float64)
        operation = torch.full((len(images),), NAMES.index(name))
        found = perform(images, operation, value, interpolating(cubic, MEAN_COLOUR))
        given = [int(argument) if name.startswith(("post", "solar")) else argument] if argument is not None else []
        for image, ours in zip(images, found, strict=True):
            expected = timm_auto.NAME_TO_OP[theirs](picture(image), *given, fillcolor=MEAN_COLOUR, resample=resample)
            off = (ours.int() - pixels(expected).int()).abs()
            assert off.max() <= 1 and off.sum() <= (2 if name in policy.MAPS else 0), argument
        moved = moved or not torch.equal(found, images)
    assert moved and torch.equal(images, before)


def test_no_bits_at_all_are_black(images: Tensor) -> None:
    """timm asks Pillow for it at the strongest level; Pillow below 13 did it."""
    operation = torch.full((len(images),), NAMES.index("posterise"))
    assert not perform(images, operation, torch.zeros(len(images), dtype=torch.float64)).any()


def test_every_image_gets_its_own_operation(images: Tensor) -> None:
    """Mixed in one batch, each is what it is alone; on a CPU and by the path that never asks the host."""
    draw = Draw(0, 1, torch.arange(len(images)))
    operation, argument = draw.below(len(NAMES)), draw.uniform(low=0.1, high=0.4)
    together = perform(images, operation, argument)
    alone = [perform(images[i : i + 1], operation[i : i + 1], argument[i : i + 1]) for i in range(len(images))]
    assert len(operation.unique()) > 10 and torch.equal(together, torch.cat(alone))


def test_the_path_of_captured_graphs_gives_the_same(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    then = ["randaugment", "randaugment_torchvision", "three_augment", "color_jitter", "random_erasing", "mixup_cutmix"]
    ours = augmentations(*({"name": name} for name in then))
    index, targets = torch.arange(len(images)), torch.arange(len(images)) % 10
    expected = ours(images, targets, index, 0, 1)

    def everywhere(images: Tensor, keep: Tensor, change: Callable[[policy.Rows], Tensor]) -> Tensor:
        return torch.where(keep.view(-1, 1, 1, 1), change(slice(None)), images)

    for module in ("policy", "three_augment", "erasing"):
        monkeypatch.setattr(f"distillery.imaging.{module}.changed", everywhere)
    found = ours(images, targets, index, 0, 1)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    some = torch.arange(len(images)) % 3 == 0
    assert torch.equal(
        changed(images, some, lambda r: 255 - images[r]), everywhere(images, some, lambda r: 255 - images[r])
    )


@pytest.mark.parametrize(("name", "theirs"), [
    ("shear_x", "ShearX"), ("shear_y", "ShearY"), ("translate_x", "TranslateX"), ("translate_y", "TranslateY"),
    ("rotate", "Rotate"), ("brightness", "Brightness"), ("colour", "Color"), ("contrast", "Contrast"),
    ("sharpness", "Sharpness"), ("posterise", "Posterize"), ("solarise", "Solarize"),
    ("autocontrast", "AutoContrast"), ("equalise", "Equalize"), ("identity", "Identity"),
])  # fmt: skip
def test_torchvision_operations_pixel_for_pixel(name: str, theirs: str, images: Tensor) -> None:
    """At the strengths of bins 9 and 30, both signs; one grey level where Pillow is handed degrees of a shear."""
    for magnitude in (9, 30):
        space = TorchvisionRandAugment(magnitude=magnitude)._augmentation_space(31, SIZE)
        strengths, signed = space[theirs]
        strength = strengths[magnitude].item() if strengths.ndim else 0.0
        for sign in (1, -1) if signed else (1,):
            options = torchvision_arguments(torch.full((len(images),), sign), magnitude, 31, *SIZE)
            assert set(options) == {n for n, _ in zip(options, space, strict=True)}
            chosen = torch.full((len(images),), list(options).index(name))
            found = perform(images, *policy.choose(options, chosen))
            wrong = 0.0
            for image, ours in zip(images, found, strict=True):
                expected = autoaugment._apply_op(
                    picture(image), theirs, strength * sign, InterpolationMode.NEAREST, None
                )
                wrong += (ours != pixels(expected)).double().mean().item()
            assert wrong / len(images) <= (2e-3 if name in ("shear_x", "shear_y") else 0)


def test_torchvision_has_no_other_operations() -> None:
    options = torchvision_arguments(torch.ones(1), 9, 31, 32, 32)
    assert len(options) == len(TorchvisionRandAugment()._augmentation_space(31, (32, 32))) == 14


@pytest.mark.parametrize("largest", [2.0, 7.0])
def test_blur_is_that_of_pillow(largest: float, images: Tensor) -> None:
    radius = Draw(0, 1, torch.arange(len(images))).uniform(low=0.1, high=largest)
    found = gaussian_blur(images, radius, largest)
    for image, r, ours in zip(images, radius.tolist(), found, strict=True):
        expected = pixels(picture(image).filter(ImageFilter.GaussianBlur(r)))
        assert (ours.int() - expected.int()).abs().max() <= 1


# --- strengths --------------------------------------------------------------------------------------------------------


def recorded(name: str, std: float, increasing: bool, count: int) -> Tensor:
    """What timm hands to its function of an operation, over many calls; NaN where it leaves the image alone."""
    found: list[float] = []
    chain = timm_auto.rand_augment_transform(
        f"rand-m9-mstd{std}-inc{int(increasing)}", {"translate_const": 100, "img_mean": MEAN_COLOUR}
    )
    (op,) = [op for op in chain.ops if op.name.removesuffix("Increasing") == name]
    op.aug_fn = lambda image, *arguments, **_: found.append(float(arguments[0]))
    random.seed(1)
    for _ in range(count):
        before = len(found)
        op(Image.new("RGB", (2, 2)))
        if len(found) == before:
            found.append(math.nan)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("name", [n for n, (_, arguments) in TIMM.items() if arguments])
def test_strengths_are_distributed_as_timm_draws_them(name: str, increasing: bool) -> None:
    """The very function of the level, and over draws of it the same distribution, signs included."""
    theirs = recorded(TIMM[name][0], 0.5, increasing, 4000)
    assert 0.46 < theirs.isnan().double().mean() < 0.54  # the probability of an operation
    draw = Draw(5, 1, torch.arange(4000))
    level, sign = (9.0 + 0.5 * draw.normal()).clamp(0, 10), 1 - 2 * draw.below(2)
    ours = torch.zeros(4000, dtype=torch.float64) + timm_arguments(level, sign, increasing)[name]
    assert stats.ks_2samp(ours, theirs[~theirs.isnan()]).pvalue > 0.01
    key = TIMM[name][0] + ("Increasing" if increasing and f"{TIMM[name][0]}Increasing" in timm_auto.NAME_TO_OP else "")
    levels = np.linspace(0, 10, 101)
    random.seed(2)
    exact = [abs(timm_auto.LEVEL_TO_ARG[key](v, {})[0] - 1.0 * symmetric(name, increasing)) for v in levels]
    value = timm_arguments(torch.from_numpy(levels), torch.ones(101), increasing)[name]
    mine = (value - 1.0 * symmetric(name, increasing)).abs()
    floor = mine >= 0.9 if symmetric(name, increasing) else torch.zeros(101, dtype=torch.bool)  # cut at 0.1 one way
    assert torch.allclose(mine[~floor], torch.tensor(exact, dtype=torch.float64)[~floor], rtol=0, atol=1e-12)


def symmetric(name: str, increasing: bool) -> bool:
    """Whether the argument lies on both sides of 1, by chance."""
    return increasing and name in ("brightness", "colour", "contrast", "sharpness")


def test_randaugment_draws_operations_evenly_and_does_half_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Tensor] = []
    monkeypatch.setattr(
        "distillery.imaging.randaugment.perform",
        lambda images, operation, argument, warp: (done.append(operation), images)[1],
    )
    settings: dict[str, Any] = {"magnitude": 9.0, "std": 0.5, "increasing": True, "cubic": None, "fill": MEAN_COLOUR}
    of_timm(
        torch.zeros(15_000, 3, 2, 2, dtype=torch.uint8),
        Draw(0, 1, torch.arange(15_000)),
        layers=2,
        prob=0.5,
        **settings,
    )
    both = torch.stack(done)
    counts = both.flatten().bincount(minlength=len(NAMES))
    assert abs(counts[0] / both.numel() - 0.5) < 0.01
    assert stats.chisquare(counts[1:]).pvalue > 0.01
    assert abs((both > 0).all(0).double().mean() - 0.25) < 0.015  # the two layers are independent


def test_colour_jitter_is_that_of_torchvision(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same order and factors give the same pixels; factors and orders come evenly."""
    steps: list[tuple[Tensor, Tensor]] = []
    real = policy.perform

    def noted(images: Tensor, operation: Tensor, argument: Tensor) -> Tensor:
        steps.append((operation, argument))
        return real(images, operation, argument)

    monkeypatch.setattr(policy, "perform", noted)
    many = images[torch.arange(1200) % len(images)]
    found = colour_jitter(many, Draw(0, 1, torch.arange(1200)), 0.4, 0.3, 1.2)
    adjust = {"brightness": tv.adjust_brightness, "contrast": tv.adjust_contrast, "colour": tv.adjust_saturation}
    for i in range(60):
        expected = picture(many[i])
        for operation, factor in steps:
            expected = adjust[NAMES[operation[i]]](expected, factor[i].item())
        assert torch.equal(found[i], pixels(expected))
    orders = torch.stack([operation for operation, _ in steps]).T
    kinds, counts = orders.unique(dim=0, return_counts=True)
    assert len(kinds) == 6 and stats.chisquare(counts).pvalue > 0.01
    jitter = ColorJitter(0.4, 0.3, 1.2)
    for name, span in (("brightness", jitter.brightness), ("contrast", jitter.contrast), ("colour", jitter.saturation)):
        low, high = span
        factors = torch.cat([factor[operation == NAMES.index(name)] for operation, factor in steps])
        assert len(factors) == 1200 and stats.kstest(factors, "uniform", (low, high - low)).pvalue > 0.01


def test_three_augment_makes_grey_solarised_or_blurred_images() -> None:
    """Every image one of the three, each about as often (VkD and DeiT III); the blur's radius is even."""
    images = photographs(300)
    found = augmentations({"name": "three_augment"})
    draw = Draw(9, 1, torch.arange(300))
    seen = AUGMENTATIONS["three_augment"].load()
    part = seen(seen.Config(), Recipe())
    changed_images, _ = part(images, torch.zeros(300), draw)
    again = Draw(9, 1, torch.arange(300))
    which, radius = again.below(3), again.uniform(low=0.1, high=2.0)
    kinds: list[Callable[[Image.Image, float], Image.Image]] = [
        lambda p, r: p.convert("L").convert("RGB"),
        lambda p, r: ImageOps.solarize(p),
        lambda p, r: p.filter(ImageFilter.GaussianBlur(r)),
    ]
    for image, ours, kind, r in zip(images, changed_images, which.tolist(), radius.tolist(), strict=True):
        assert (ours.int() - pixels(kinds[kind](picture(image), r)).int()).abs().max() <= 1
    assert stats.chisquare(which.bincount()).pvalue > 0.01
    assert found.capturable and not found.soft


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


# --- the whole list ---------------------------------------------------------------------------------------------------

DEIT = ({"name": "randaugment"}, {"name": "random_erasing"}, {"name": "mixup_cutmix"})


def test_a_batch_is_a_pure_function_of_seed_epoch_and_images(images: Tensor) -> None:
    labels, index, before = torch.arange(8), torch.arange(100, 108), images.clone()
    ours = augmentations(*DEIT)
    first = ours(images[:8], labels, index, 1, 2)
    ours(images[8:16], labels, index + 8, 1, 2)
    torch.manual_seed(3)
    again = augmentations(*DEIT)(images[:8], labels, index, 1, torch.tensor(2.0))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(images, before)
    for seed, epoch, at in ((2, 2, index), (1, 3, index), (1, 2, index + 1)):
        other = ours(images[:8], labels, at, seed, epoch)
        assert not torch.equal(other[0], first[0]) and not torch.equal(other[1], first[1])


def test_an_image_does_not_depend_on_its_batch_where_nothing_mixes(images: Tensor) -> None:
    ours = augmentations(
        {"name": "randaugment"}, {"name": "three_augment"}, {"name": "color_jitter"}, {"name": "random_erasing"}
    )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    whole, _ = ours(images, order, torch.arange(len(images)), 0, 5)
    some, _ = ours(images[order[:9]], order[:9], order[:9], 0, 5)
    assert torch.equal(some, whole[order[:9]])


def test_an_entry_draws_the_same_whatever_else_is_there(images: Tensor) -> None:
    labels = torch.arange(len(images)) % 10
    alone = augmentations({"name": "mixup"})(images, labels, labels, 0, 1)[1]
    beside = augmentations({"name": "three_augment"}, {"name": "random_erasing"}, {"name": "mixup"})
    assert torch.equal(beside(images, labels, labels, 0, 1)[1], alone)


def test_grey_images_stay_grey(images: Tensor) -> None:
    grey = images[:, :1].contiguous()
    ours = augmentations({"name": "three_augment"}, {"name": "color_jitter"}, {"name": "random_erasing"})
    index = torch.arange(len(images))
    found, _ = ours(grey, index, index, 0, 1)
    assert found.shape == grey.shape and (found != normalise(grey)).flatten(1).any(1).double().mean() > 0.5


def test_double_precision_and_channels_last_are_kept(images: Tensor) -> None:
    def double(images: Tensor) -> Tensor:
        return (images.double() / 255).contiguous(memory_format=torch.channels_last)

    ours = Augmentations(Recipe(augmentation={"then": DEIT}), 10, double)
    index = torch.arange(len(images))
    found, targets = ours(images, index % 10, index, 0, 1)
    assert found.dtype == targets.dtype == torch.float64
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_images_that_are_not_grey_levels_are_refused() -> None:
    recipe = Recipe(augmentation={"then": [{"name": "mixup"}]})
    assert Augmentations(recipe, 10, normalise, 1, 16.0).soft
    recipe = Recipe(augmentation={"then": [{"name": "three_augment"}]})
    for channels, scale in ((1, 16.0), (4, 255.0)):
        with pytest.raises(
            DistilleryError, match=f"three_augment works on .* have {channels} of 0 to {scale:g}: drop it"
        ):
            Augmentations(recipe, 10, normalise, channels, scale)


EVERYTHING = (
    "randaugment",
    "randaugment_torchvision",
    "three_augment",
    "color_jitter",
    "random_erasing",
    "mixup_cutmix",
)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_nothing_asks_for_a_number_on_the_device(name: str) -> None:
    """On torch's meta device there are no numbers: what could not be captured in a graph fails here."""
    ours = augmentations({"name": name})
    assert ours.capturable
    index = torch.arange(6, device="meta")
    images = torch.empty(6, 3, 16, 12, dtype=torch.uint8, device="meta")
    found, targets = ours(images, index, index, 0, torch.ones((), device="meta"))
    assert found.is_meta and found.shape == images.shape and len(targets) == 6
    with pytest.raises(RuntimeError):
        index.sum().item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", EVERYTHING)
def test_a_captured_graph_replays_them_with_the_numbers_of_the_moment(
    name: str, deterministic: bool, images: Tensor
) -> None:
    """It gives what eager steps give, and those what a CPU gives, but for the last bit of sine and logarithm."""
    ours, count = augmentations({"name": name}), len(images)
    some, labels = images.cuda(), torch.arange(count).cuda() % 10
    index, epoch = torch.arange(count).cuda(), torch.ones((), device="cuda")
    torch.use_deterministic_algorithms(deterministic)
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            ours(some, labels, index, 0, epoch)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            replayed = ours(some, labels, index, 0, epoch)
        for number, shift in ((1, 0), (2, 0), (7, 1000)):
            epoch.fill_(number)
            index.copy_(torch.arange(count) + shift)
            graph.replay()
            eager = ours(some, labels, index, 0, number)
            assert all(torch.equal(a, b) for a, b in zip(replayed, eager, strict=True))
            there = ours(images, labels.cpu(), index.cpu(), 0, number)
            off = [(a.cpu().double() - b.double()).abs() for a, b in zip(eager, there, strict=True)]
            assert all((o > 1e-5).double().mean() < 2e-3 for o in off)
    finally:
        torch.use_deterministic_algorithms(False)


# --- in a recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("then", "sentence"), [
    ([{"name": "mixupp"}], "augmentation.then.0: unknown augmentation 'mixupp': did you mean 'mixup'?"),
    ([{"name": "mixup", "alpha": 0}], "augmentation.then.0.alpha: greater than 0, not 0"),
    ([{"name": "mixup", "beta": 1}], "augmentation.then.0: unknown key 'beta': known: prob, mode, alpha"),
    ([{"name": "mixup", "prob": 0}], "augmentation.then.0.prob: 0 switches it off: drop the entry"),
    ([{"name": "mixup_cutmix", "switch_prob": 1}], "augmentation.then.0.switch_prob: 1 always cuts: name cutmix"),
    ([{"name": "random_erasing", "area": [0.5, 0.1]}],
     "augmentation.then.0.area: the smallest, 0.5, is above the largest, 0.1"),
    ([{"name": "random_erasing", "area": [0, 0]}], "augmentation.then.0.area: 0 erases nothing: drop the entry"),
    ([{"name": "random_erasing", "prob": 0}], "augmentation.then.0.prob: 0 switches it off: drop the entry"),
    ([{"name": "randaugment", "prob": 0}], "augmentation.then.0.prob: 0 switches it off: drop the entry"),
    ([{"name": "randaugment_torchvision", "magnitude": 31}],
     "augmentation.then.0.magnitude: 31 is none of 31 bins, counted from 0"),
    ([{"name": "three_augment", "radius": [3, 2]}],
     "augmentation.then.0.radius: the smallest, 3, is above the largest, 2"),
    ([{"name": "color_jitter", "brightness": 0, "contrast": 0, "saturation": 0}],
     "augmentation.then.0.brightness: nothing is changed: drop the entry"),
    ([{"name": "mixup"}, {"name": "mixup"}], "augmentation.then.1: mixup is there already"),
    ([{"name": "mixup"}, {"name": "cutmix"}],
     "augmentation.then.1: mixup mixes images too: mixup_cutmix chooses one of both for every batch"),
    ([{"name": "random_erasing"}, {"name": "randaugment"}],
     "augmentation.then.1: randaugment comes before images are normalised: move it before random_erasing"),
])  # fmt: skip
def test_what_cannot_be_or_has_no_effect_is_refused(then: list[dict[str, Any]], sentence: str) -> None:
    assert Recipe(augmentation={"then": then}).contradictions() == [sentence]


def test_every_augmentation_is_valid_as_it_comes() -> None:
    for name in AUGMENTATIONS:
        assert Recipe(augmentation={"then": [{"name": name}]}).contradictions() == []


def test_identity_holds_what_acts_and_nothing_else() -> None:
    plain = Recipe().effective()
    assert plain["augmentation"] == {"pad": 4, "flip": True}
    assert Recipe(augmentation={"then": []}).effective() == plain
    short = Recipe(augmentation={"then": [{"name": "mixup"}]}).effective()
    assert short == Recipe(augmentation={"then": [{"alpha": 0.8, "name": "mixup", "prob": 1}]}).effective()
    assert short["augmentation"]["then"] == [{"name": "mixup", "prob": 1.0, "mode": "batch", "alpha": 0.8}]
    assert Recipe.model_validate(short).effective() == short
    other = Recipe(augmentation={"then": [{"name": "mixup", "alpha": 0.2}]})
    assert other.effective() != short
    assert other.updated({"augmentation": {"pad": 4}}).effective() == plain
    assert Recipe().augmentation.enumerable and not other.augmentation.enumerable


# --- in training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few() -> Dataset:
    facts: dict[str, Any] = {"class_names": tuple("abcde"), "scale": 255.0, "mean": (0.5,) * 3, "std": (0.3,) * 3}
    whole, labels = photographs(40)[..., :8, :8].contiguous(), torch.arange(40) % 5
    return Dataset(whole, labels, whole, labels, rows=torch.arange(40), **facts)


SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 0.01, "milestones": (), "label_smoothing": 0.1}


def train(data: Dataset, recipe: Recipe, at: int = 0, checkpoint: Checkpoint | None = None) -> tuple[Any, list[Batch]]:
    """The weights, and the batches that the loss has seen; with SIGTERM in step `at`."""
    set_up(recipe)
    trainee, seen = assemble("resnet8_w2", Method(objective="ce"), data, [], 0), []
    supervised = trainee.objective.supervised

    def noted(batch: Batch) -> dict[str, Tensor]:
        seen.append(batch)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return supervised(batch)

    trainee.objective.supervised = noted  # type: ignore[method-assign]
    fit(trainee, data.loader(recipe), None, recipe, 0, checkpoint)
    return [p.detach() for p in trainee.student.parameters()], seen


def test_training_sees_soft_targets_and_is_the_same_again(few: Dataset) -> None:
    recipe = Recipe(augmentation={"pad": 1, "flip": True, "then": DEIT}, **SHORT)
    (weights, seen), (again, _) = train(few, recipe), train(few, recipe)
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    for batch in seen:
        one, two = batch.targets, soft_targets(few.train_labels[batch.index], 5, 0.1)
        share = (one - two.flip(0)).norm(dim=1) / (two - two.flip(0)).norm(dim=1)
        share = share[~share.isnan() & ~share.isinf()]
        assert torch.allclose(share, share[0].expand_as(share), atol=1e-5)  # one share for the whole batch, smoothed
    plain = train(few, Recipe(augmentation={"pad": 1, "flip": True}, **SHORT))
    assert all(batch.targets.dtype == torch.int64 for batch in plain[1])
    assert [b.index.tolist() for b in plain[1]] == [b.index.tolist() for b in seen]  # in the same order
    assert not torch.equal(plain[0][0], weights[0])


@pytest.mark.parametrize("at", [2, 5])
def test_stopped_in_mid_epoch_a_run_ends_with_the_same_bits(few: Dataset, at: int, tmp_path: Path) -> None:
    recipe = Recipe(augmentation={"pad": 1, "flip": True, "then": DEIT}, **SHORT)
    weights, _ = train(few, recipe)
    with pytest.raises(Preempted):
        train(few, recipe, at, Checkpoint(tmp_path / "run.safetensors", "key"))
    resumed, seen = train(few, recipe, 0, Checkpoint(tmp_path / "run.safetensors", "key"))
    assert len(seen) == 6 - at
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))


# --- in a study -------------------------------------------------------------------------------------------------------

OWN = """
from distillery.api import Augment, Share

class Dark(Augment):
    class Config(Augment.Config):
        prob: Share = 0.5

    config: Config

    def __call__(self, images, targets, draw):
        keep = draw.uniform() < self.config.prob
        return images * ~keep[:, None, None, None], targets

class Lost(Dark):
    def __call__(self, images, targets, draw):
        return images[1:], targets[1:]

class Failing(Dark):
    def __call__(self, images, targets, draw):
        raise ValueError("no such thing")
"""


def study(*then: dict[str, Any], source: str = "cifar100") -> dict[str, Any]:
    recipe = STUDY["recipe"] | {"augmentation": {"then": list(then)}}
    return STUDY | {"data": {"source": source}, "recipe": recipe, "methods": {"ce": {"objective": "ce"}}, "tables": {}}


def test_a_study_is_refused_for_what_its_augmentations_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    sentences = {
        "Lost": "teachers.t: augmentation makes torch.float32 images of (3, 3, 32, 32) with targets of (3,) out of "
        "(4, 3, 32, 32): it must keep their type and shape",
        "Failing": "teachers.t: augmentation raises ValueError: no such thing",
    }
    rehearse(check(study({"name": "own.py:Dark", "prob": 0.1})))
    for name, sentence in sentences.items():
        with pytest.raises(DistilleryError) as refused:
            rehearse(check(study({"name": f"own.py:{name}"})))
        assert str(refused.value) == f"params.yaml: {sentence}"
    with pytest.raises(DistilleryError, match=r"recipe.augmentation.then.0: unknown key 'p': known: prob"):
        check(study({"name": "own.py:Dark", "p": 1}))
    with pytest.raises(DistilleryError, match=r"three_augment works on .* have 1 of 0 to 16: drop it"):
        rehearse(check(study({"name": "three_augment"}, source="digits")))


ONE_CLASS = {"crd", "dkd", "ensemble", "label_revision", "mlkd", "rc", "rld", "kd with revise", "kd with swap"}
BLOCKS: dict[str, dict[str, Any]] = {name: {"objective": name} for name in OBJECTIVES}
BLOCKS |= {f"kd with {name}": {"objective": "kd", "plugins": {name: {}}} for name in PLUGINS}


@pytest.mark.parametrize("name", BLOCKS)
def test_methods_that_ask_for_one_class_are_refused_where_images_are_mixed(name: str) -> None:
    mixing = study({"name": "mixup"}) | {"methods": {"m": BLOCKS[name]}}
    mixing["teachers"] = {"t": {"architecture": "resnet8_w8", "recipe": {"augmentation": {"pad": 1}}}}
    if name not in ONE_CLASS:
        rehearse(check(mixing))
        return
    with pytest.raises(DistilleryError, match=r"methods.m for t-s: it asks for one class per image, .* override"):
        rehearse(check(mixing))
    rehearse(check(mixing | {"methods": {"m": BLOCKS[name] | {"recipe": {"augmentation": {"pad": 1}}}}}))


def test_jobs_depend_on_the_code_of_the_augmentations_that_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    checked = check(study({"name": "own.py:Dark"}, {"name": "mixup"}))
    assert Path("own.py") in named_files(checked)
    (distill,) = [job for job in resolve(checked) if job.stage == "distill"]
    used = [component.module for component in components("distill", distill.values)]
    assert {"own.py", "distillery.recipe.mixing"} <= {*used}
    assert "distillery.recipe.random_erasing" not in used
    before = fingerprint("distill", distill.values)
    code._parsed.cache_clear() if hasattr(code._parsed, "cache_clear") else None
    code._module.cache_clear(), code._closure.cache_clear()
    Path("own.py").write_text(OWN.replace("~keep", "keep"))
    assert fingerprint("distill", distill.values) != before


def test_a_view_table_is_not_made_where_images_are_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher runs live, and the records say why."""
    monkeypatch.chdir(tmp_path)
    recipe = STUDY["recipe"] | {"epochs": 1, "milestones": [], "augmentation": {"pad": 1, "flip": False}}
    erased = {"augmentation": {"pad": 1, "flip": False, "then": [{"name": "random_erasing"}]}}
    methods = {"kd": {"objective": "kd"}, "erased": {"objective": "kd", "recipe": erased}}
    write(STUDY | {"recipe": recipe, "methods": methods})
    make()
    said = {m: read_json(Path(f"artifacts/small/runs/t-s/{m}/0/runs.json"))["teacher_outputs"] for m in methods}
    assert said["kd"] == "view table"
    assert said["erased"] == "live teacher: what random_erasing makes of an image cannot be enumerated"
    write(STUDY | {"recipe": recipe | erased, "methods": methods})
    make()
    why = "what random_erasing makes of an image cannot be enumerated"
    assert read_json(Path("artifacts/small/cache/t/cache.json"))["live"] == why
