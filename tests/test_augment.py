"""A recipe's augmentations as a list: random numbers, replay, captured graphs, what is refused, identity."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from augmenting import DEIT, augmentations, normalise, pictures
from scipy import stats
from torch import Tensor

from distillery.data.augment import Augmentations
from distillery.errors import DistilleryError
from distillery.imaging.draw import Draw
from distillery.recipe import AUGMENTATIONS
from distillery.study.blocks import Recipe
from distillery.study.contradictions import contradictions


@pytest.fixture(scope="module")
def images() -> Tensor:
    return pictures()


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


# --- the whole list ---------------------------------------------------------------------------------------------------


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


def test_a_process_without_images_gets_none(images: Tensor) -> None:
    """Several processes may share a last batch that is smaller than they are many."""
    nothing = torch.arange(0)
    found, targets = augmentations(*DEIT)(images[:0], nothing, nothing, 0, 1)
    assert found.shape == (0, 3, 32, 24) and targets.shape == (0, 10)
    found, targets = augmentations(*DEIT)(images[:1], torch.tensor([4]), torch.tensor([7]), 0, 1)
    assert found.shape == (1, 3, 32, 24) and targets.argmax() == 4 and targets.sum().item() == pytest.approx(1)


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
    assert contradictions(Recipe(augmentation={"then": then})) == [sentence]


def test_every_augmentation_is_valid_as_it_comes() -> None:
    for name in AUGMENTATIONS:
        assert contradictions(Recipe(augmentation={"then": [{"name": name}]})) == []


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
    assert other.updated({"augmentation": {"then": []}}).effective() == plain
    assert Recipe().augmentation.enumerable and not other.augmentation.enumerable
