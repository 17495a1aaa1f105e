"""Operations on grey levels: the pixels and the strengths of timm, torchvision and Pillow."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from augmenting import MEAN_COLOUR, SIZE, augmentations, picture, pictures, pixels
from photographs import photographs
from PIL import Image, ImageFilter, ImageOps
from scipy import stats
from timm.data import auto_augment as timm_auto
from torch import Tensor
from torchvision.transforms import ColorJitter, autoaugment
from torchvision.transforms import RandAugment as TorchvisionRandAugment
from torchvision.transforms import functional as tv
from torchvision.transforms.functional import InterpolationMode

from distillery.imaging import policy
from distillery.imaging.blur import gaussian_blur
from distillery.imaging.draw import Draw
from distillery.imaging.policy import NAMES, colour_jitter, interpolating, perform
from distillery.imaging.randaugment import of_timm, timm_arguments, torchvision_arguments
from distillery.recipe import AUGMENTATIONS
from distillery.study.blocks import Recipe


@pytest.fixture(scope="module")
def images() -> Tensor:
    return pictures()


# --- pixels -----------------------------------------------------------------------------------------------------------

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

    monkeypatch.setattr(policy, "at_once", lambda images: True)
    found = ours(images, targets, index, 0, 1)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


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
    degrees: list[Tensor] = []

    def noted(images: Tensor, operation: Tensor, argument: Tensor, warp: policy.Warp) -> Tensor:
        done.append(operation)
        degrees.append(argument[operation == NAMES.index("rotate")])
        return images

    monkeypatch.setattr("distillery.imaging.randaugment.perform", noted)
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
    theirs = recorded("Rotate", 0.5, True, 2000)
    assert stats.ks_2samp(torch.cat(degrees), theirs[~theirs.isnan()]).pvalue > 0.01


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
