"""What every family promises beyond the golden vectors: taps, entry in the middle, image sizes, initialisation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from models_examples import FAMILIES, example
from torch import Tensor, nn

from distillery.models import NETWORKS, build
from distillery.models.base import Network, Outputs
from distillery.models.layers import shuffle

pytestmark = pytest.mark.slow

STAGE_NORMS = {
    "resnet8x4": ["layer1.0.bn2", "layer2.0.bn2", "layer3.0.bn2"],
    "resnet14": ["layer1.1.bn2", "layer2.1.bn2", "layer3.1.bn2"],
    "wrn_40_2": ["block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"],
    "vgg8": ["block1.1", "block2.1", "block3.1", "block4.1"],
    "vgg13": ["block1.4", "block2.4", "block3.4", "block4.4"],
    "resnet18": [f"layer{stage}.1.bn2" for stage in (1, 2, 3, 4)],
    "resnet50": ["layer1.2.bn3", "layer2.3.bn3", "layer3.5.bn3", "layer4.2.bn3"],
    "mobilenet_v2": ["blocks.1.1.conv.7", "blocks.2.2.conv.7", "blocks.4.2.conv.7", "blocks.6.0.conv.7"],
}

TRANSFORMERS = {name for name, row in NETWORKS.items() if row.module.endswith((".deit", ".pit", ".pvt", ".t2t"))}


@pytest.mark.parametrize(("name", "size"), [*((name, 16) for name in FAMILIES), ("vgg13", 64)])
def test_tail_from_any_tap_gives_the_logits(name: str, size: int) -> None:
    network, images = example(name, size)
    with torch.no_grad():
        out = network(images)
        for stage, features in enumerate(out.maps):
            before = features.clone()
            torch.testing.assert_close(network.tail(features, stage), out.logits, rtol=1e-12, atol=1e-12)
            assert torch.equal(features, before), f"tail has changed the map of stage {stage}"
        # The tap matters: the logits follow from it alone.
        assert not torch.allclose(network.tail(out.maps[-1] * 1.5, len(out.maps) - 1), out.logits)
    with pytest.raises(ValueError, match="cannot start after"):
        network.tail(out.maps[0], len(out.maps))


@pytest.mark.parametrize("name", FAMILIES)
def test_head_maps_pooled_features_to_logits(name: str) -> None:
    network, images = example(name)
    with torch.no_grad():
        out = network(images)
    assert out.pooled is not None and out.preacts == ()
    torch.testing.assert_close(out.logits, F.linear(out.pooled, network.head.weight, network.head.bias))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mobilenet_v2"])
def test_preacts_are_the_maps_before_their_activation(name: str) -> None:
    network, images = example(name)
    with torch.no_grad():
        plain, out = network(images), network(images, preacts=True)
    assert torch.equal(plain.logits, out.logits)
    assert out.preacts[0] is out.maps[0]
    for before, after in zip(out.preacts[1:], out.maps[1:], strict=True):
        assert (before < 0).any(), "an activation has been applied to a pre-activation tap"
        if name.startswith("wrn"):
            assert (after < 0).any(), "the maps of this family are raw sums"
        elif name == "shufflenet_v2":  # another order of channels, by the lineage's definition
            assert torch.equal(shuffle(F.relu(before), 2), after)
        else:
            assert torch.equal(F.relu(before), after)
    if name.startswith("wrn"):
        for norm, before, after in zip(network.stage_norms(), out.preacts[1:], out.maps[1:], strict=True):
            assert torch.equal(norm(after), before)


def test_mobilenet_has_no_preacts() -> None:
    network, images = example("mobilenet_v2")
    out = network(images, preacts=True)
    assert out.preacts == ()
    assert all((tap < 0).any() for tap in out.maps[1:])


def test_wide_resnets_count_a_batch_twice_only_where_preacts_are_asked_for() -> None:
    network, images = example("wrn_16_2", size=8)
    network.train()
    for preacts, added in ((False, 1), (True, 2)):
        before = [int(norm.num_batches_tracked) for norm in network.stage_norms()]
        network(images, preacts=preacts)
        after = [int(norm.num_batches_tracked) for norm in network.stage_norms()]
        assert [b - a for a, b in zip(before, after, strict=True)] == [added] * 3


@pytest.mark.parametrize("name", STAGE_NORMS)
def test_stage_norms(name: str) -> None:
    network = build(name, 7)
    names = {id(module): key for key, module in network.named_modules()}
    assert [names[id(norm)] for norm in network.stage_norms()] == STAGE_NORMS[name]


@pytest.mark.parametrize("name", ["shufflenet_v1", "shufflenet_v2"])
def test_shufflenets_refuse_stage_norms(name: str) -> None:
    with pytest.raises(ValueError, match="no batch normalisation"):
        build(name, 7).stage_norms()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in TRANSFORMERS])
def test_small_grey_images(name: str) -> None:
    network = build(name, 10, in_channels=1)
    with torch.no_grad():
        out = network.train()(torch.rand(2, 1, 8, 8), preacts=True)
    assert out.logits.shape == (2, 10) and out.logits.isfinite().all()
    assert out.maps[0].shape[0] == 2 and out.maps[-1].shape[-1] in (1, 2)


def test_vgg_pools_once_more_for_64_pixels_only() -> None:
    network, images = example("vgg8", size=64)
    assert [tap.shape[-1] for tap in network(images).maps] == [64, 32, 16, 8, 4]
    assert [tap.shape[-1] for tap in network(images[:, :, :48, :48]).maps] == [48, 24, 12, 6, 6]


def test_our_small_resnets_have_the_widths_of_their_names() -> None:
    for depth in (8, 14, 20):
        for width in (2, 4, 8):
            network, images = example(f"resnet{depth}_w{width}", size=8, channels=1)
            assert [tap.shape[1] for tap in network(images).maps] == [width, width, 2 * width, 4 * width]
            assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in network.modules()) == depth - 1


def scalar(out: Outputs, weights: list[Tensor]) -> Tensor:
    """A number that depends on everything a network returns."""
    assert out.pooled is not None
    taps = [out.logits, out.pooled, *out.maps, *out.preacts]
    return torch.stack([(tap * weight).mean() for tap, weight in zip(taps, weights, strict=True)]).sum()


@pytest.mark.slow
@pytest.mark.parametrize("preacts", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_through_all_taps(name: str, preacts: bool) -> None:
    """In-place activations must not touch what the taps or the backward pass still need."""
    network, images = example(name, size=8, batch=4)
    out = network(images, preacts=preacts)
    assert out.pooled is not None
    weights = [torch.randn_like(tap) for tap in (out.logits, out.pooled, *out.maps, *out.preacts)]
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(scalar(out, weights), parameters)
    direction = [torch.randn_like(p) for p in parameters]
    expected = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))

    def shifted(step: float) -> Tensor:
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=step)
            value = scalar(network(images, preacts=preacts), weights)
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(d, alpha=step)
        return value

    step = 1e-8  # small, because every ReLU that changes side in between is an error of the measurement
    measured = (shifted(step) - shifted(-step)) / (2 * step)
    torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-5)


def convolutions(network: Network) -> list[nn.Conv2d]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() >= 2000]


@pytest.mark.parametrize("name", FAMILIES)
def test_initialisation(name: str) -> None:
    torch.manual_seed(1)
    network = build(name, 100)
    for module in convolutions(network):
        if name.startswith(("shufflenet", "mobilenet_v1")):  # uniform, the framework's default
            std, top = 1 / math.sqrt(3 * module.weight[0].numel()), 1 / math.sqrt(module.weight[0].numel())
            assert module.weight.abs().max() <= top
        else:  # normal
            std = math.sqrt(2 / (module.kernel_size[0] * module.kernel_size[1] * module.out_channels))
            assert module.weight.abs().max() > 2.5 * std
        assert module.weight.std().item() == pytest.approx(std, rel=0.08)
        assert module.bias is None or not module.bias.any()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()
    head = network.head
    default = 1 / math.sqrt(3 * head.in_features)
    normal = name.startswith(("vgg", "mobilenet_v2"))
    assert head.weight.std().item() == pytest.approx(
        0.01 if normal else default, rel=0.05 if head.in_features > 8 else 0.1
    )
    assert bool(head.bias.any()) == (not normal and not name.startswith("wrn"))
