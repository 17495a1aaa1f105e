"""ImageNet networks and vision transformers against golden vectors, loaded as the released code saves them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import vision_golden as golden
from torch import Tensor, nn

from distillery.models import build
from distillery.models.base import Network

pytestmark = pytest.mark.slow

QUICK = {"ls_deit_ti", "ls_pit_ti", "ls_t2t_vit_7", "ls_resnet56"}  # one or two seconds each
WITH_OUTPUTS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in golden.networks()
    if golden.arrays(name)
]


@pytest.mark.parametrize("name", golden.networks())
def test_weights_are_the_released_ones(name: str) -> None:
    want = golden.facts(name)
    with torch.device("meta"):
        network = build(golden.ours(name), want["num_classes"])
    got = {key: list(t.shape) for key, t in network.state_dict().items()}
    assert got == {network.renamed(e["key"]): e["shape"] for e in want["state_dict"]}
    assert len(got) == len(want["state_dict"])
    assert sum(p.numel() for p in network.parameters()) == want["parameters"] == golden.networks()[name]
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == want["trainable_parameters"]


@pytest.mark.parametrize("name", golden.networks())
def test_arithmetic(name: str) -> None:
    """Multiply-accumulates of convolution and linear layers, from shapes alone."""
    want, counted = golden.facts(name), 0
    with torch.device("meta"):
        network = build(golden.ours(name), want["num_classes"]).eval()

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        counted += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        out = network(torch.empty(1, *want["input_shape"], device="meta"), preacts=True)
    assert counted == want["macs"]["conv_and_linear"]
    forms = want["forms"]
    assert out.pooled is not None and list(out.pooled.shape[1:]) == [network.head.in_features]
    if "taps_feats" in forms:
        stem = forms["taps_feats"] != [list(m.shape[1:]) for m in out.maps]  # mdistiller's MobileNetV1 has no stem tap
        assert [list(m.shape[1:]) for m in out.maps[stem:]] == forms["taps_feats"]
        assert [list(m.shape[1:]) for m in out.preacts[stem:]] == forms["taps_preact_feats"]
    elif "taps_patch_tokens" in forms:
        assert [list(t.shape[1:]) for t in out.tokens] == forms["taps_patch_tokens"]


def taps(name: str, network: Network, images: Tensor, key: str) -> list[Tensor]:
    """The released code's taps of a kind, read from our network."""
    if key in ("taps_feats", "taps_preact_feats") or name == "ls_resnet56":
        out = network(images, preacts=True)
        found = out.preacts if "preact" in key else out.maps
        return list(found[1:] if name in ("imagenet_mobilenet_v1", "ls_resnet56") else found)
    if key == "taps_patch_tokens":
        return list(network(images).tokens)
    noted: list[Tensor] = []
    for (
        module
    ) in network.modules():  # blocks: all tokens as VkD taps them, maps of the patches as tiny-transformers does
        if type(module).__name__ == "Block":
            module.register_forward_hook(lambda m, given, output: noted.append(output))
    out = network(images)
    if key == "taps_blocks":
        return noted
    grids = [form[1:] for form in golden.facts(name)["forms"][key]]
    assert out.logits is not None and len(grids) == len(noted)
    return [t[:, -h * w :].transpose(1, 2).unflatten(2, (h, w)) for t, (h, w) in zip(noted, grids, strict=True)]


@pytest.mark.parametrize("name", WITH_OUTPUTS)
def test_outputs_equal_the_released_code(name: str) -> None:
    want, facts = golden.arrays(name), golden.facts(name)
    assert want is not None
    network = golden.filled(name)
    state = network.state_dict()
    sums = [float(state[network.renamed(e["key"])].double().sum()) for e in facts["state_dict"]]
    golden.agrees(np.array(sums), want["hash_state_dict_sums_f64"], 1e-10)
    images = golden.images((4 if facts["input_shape"][1] == 32 else 2, *facts["input_shape"]))
    with torch.no_grad():
        compare(network, images, want, "f64", 1e-10)
        for key in ("taps_feats", "taps_preact_feats", "taps_blocks", "taps_layers", "taps_patch_tokens"):
            if f"hash_{key}_stats_f64" in want:
                check_taps(taps(name, network, images, key), want, key)
        train(network, images, want, facts)
        compare(golden.filled(name, torch.float32), images.float(), want, "f32", 2e-5, 1e-6)


def compare(
    network: Network, images: Tensor, want: dict[str, np.ndarray], dtype: str, rtol: float, atol: float = 1e-12
) -> None:
    out = network(images)
    assert out.pooled is not None
    got: dict[str, Tensor | None] = {"logits": out.logits, "pooled": out.pooled, "feature_class_token": out.pooled}
    got |= {"logits_class": network.head(out.pooled), "logits_distillation": out.distilled}
    if out.tokens:
        got["feature_patch_mean"] = out.tokens[-1].mean(1)
    checked = {key for key in got if f"hash_{key}_{dtype}" in want}
    assert "logits" in checked
    for key in checked:
        value = got[key]
        assert value is not None
        golden.agrees(value, want[f"hash_{key}_{dtype}"], rtol, atol)


def check_taps(found: list[Tensor], want: dict[str, np.ndarray], key: str) -> None:
    statistics, first = want[f"hash_{key}_stats_f64"], want[f"hash_{key}_first8_f64"]
    assert len(found) == len(statistics)
    for tap, numbers, some in zip(found, statistics, first, strict=True):
        stats = [tap.mean(), tap.std(unbiased=False), tap.min(), tap.max(), tap.abs().sum()]
        golden.agrees(torch.stack(stats), numbers, 1e-10)
        golden.agrees(tap.flatten()[:8], some, 1e-10)


def train(network: Network, images: Tensor, want: dict[str, np.ndarray], facts: dict) -> None:
    """The pass in training mode, last because it moves running statistics."""
    network.train()
    out = network(images)
    for key, value in {"logits": out.logits, "logits_class": out.logits, "logits_distillation": out.distilled}.items():
        if f"hash_train_{key}_f64" in want:
            assert value is not None
            golden.agrees(value, want[f"hash_train_{key}_f64"], 1e-10)
    if "hash_train_running_sums_f64" in want:
        state = network.state_dict()
        keys = [network.renamed(e["key"]) for e in facts["state_dict"] if e["kind"].startswith("running_")]
        golden.agrees(np.array([float(state[key].sum()) for key in keys]), want["hash_train_running_sums_f64"], 1e-10)
