"""Every network against the golden vectors of the released code."""

from __future__ import annotations

import copy

import golden as vectors
import models_golden as golden
import numpy as np
import pytest
import torch
import vision_golden
from torch import Tensor, nn

from distillery.models import NETWORKS, build
from distillery.models.base import Network

OURS = [name for name in NETWORKS if "_w" in name and name.startswith("resnet")]
UNPUBLISHED_OUTPUTS = {"resnet110", "wrn_40_1", "vgg13", "mobilenet_v2", "shufflenet_v1"}
NO_GOLDEN = {"wrn_16_4": 2_772_020, "wrn_28_2": 1_479_220, "wrn_28_4": 5_872_180}  # name -> parameters
MACS_NO_GOLDEN = {"wrn_16_4": 392.64, "wrn_28_2": 214.36, "wrn_28_4": 845.62}  # millions
# Networks for ImageNet and vision transformers: test_vision_golden.py.
VISION = set(map(vision_golden.ours, vision_golden.networks())) - {"resnet56"} | {"vkd_deit_w48", "deit_w48_p2"}
GOLDEN = [name for name in NETWORKS if name not in VISION and name not in OURS and name not in NO_GOLDEN]
WITH_OUTPUTS = [name for name in GOLDEN if golden.has_outputs(name)]


def close(got: Tensor | np.ndarray, want: np.ndarray, rtol: float) -> bool:
    """Comparison in the maximum norm, as the golden vectors prescribe."""
    got = got.detach().double().numpy() if isinstance(got, Tensor) else got
    return got.shape == want.shape and bool(np.abs(got - want).max() <= rtol * np.abs(want).max() + 1e-12)


def statistics(taps: tuple[Tensor, ...]) -> np.ndarray:
    rows = [(t.mean(), t.std(unbiased=False), t.min(), t.max(), t.abs().sum()) for t in taps]
    return np.array([[float(value) for value in row] for row in rows])


def filled(name: str, tag: str, entries: list[dict]) -> Network:
    network = build(name, 100).double().eval()
    golden.fill(network, tag, entries)
    return network


def test_the_repository_holds_vectors_of_every_network() -> None:
    here = vectors.VECTORS / "architectures"
    files = {name: golden.RELEASED_NAMES.get(name, name) for name in GOLDEN}
    assert all((here / f"{file}.json").is_file() for file in files.values())
    assert {name for name, file in files.items() if not (here / f"{file}.npz").is_file()} == UNPUBLISHED_OUTPUTS


@pytest.mark.parametrize("name", GOLDEN)
def test_state_dict_is_the_released_one(name: str) -> None:
    want = golden.facts(name)
    network = build(name, 100)
    got = [(key, list(t.shape), str(t.dtype)) for key, t in network.state_dict().items()]
    assert got == [(e["key"], e["shape"], f"torch.{e['dtype']}") for e in want["state_dict"]]
    assert sum(p.numel() for p in network.parameters()) == want["parameters"]


@pytest.mark.parametrize("name", [*GOLDEN, *NO_GOLDEN])
def test_taps_and_arithmetic(name: str) -> None:
    network = build(name, 100).eval()
    macs = count_macs(network)
    with torch.no_grad():
        outputs = network(torch.zeros(1, 3, 32, 32), preacts=True)
    if name in NO_GOLDEN:
        factor = int(name.rpartition("_")[2])
        taps = [[16, 32, 32], [16 * factor, 32, 32], [32 * factor, 16, 16], [64 * factor, 8, 8]]
        preacts, pooled = taps, [64 * factor]
        assert sum(p.numel() for p in network.parameters()) == NO_GOLDEN[name]
        assert sum(macs) / 1e6 == pytest.approx(MACS_NO_GOLDEN[name], abs=0.005)
    else:
        want = golden.facts(name)
        tapped = want["taps"]["mdistiller"]
        taps, preacts, pooled = tapped["feats"], tapped.get("preact_feats", []), tapped["pooled_feat"]
        assert macs == (want["macs"]["conv"], want["macs"]["linear"])
    assert [list(t.shape[1:]) for t in outputs.maps] == taps
    assert [list(t.shape[1:]) for t in outputs.preacts] == preacts
    assert outputs.pooled is not None and list(outputs.pooled.shape[1:]) == pooled
    assert network.head.in_features == pooled[0] and network.head.out_features == 100


def count_macs(network: Network) -> tuple[int, int]:
    """Multiply-accumulates of convolutions and linear layers for one 32 x 32 image, measured by running it."""
    counts = {nn.Conv2d: 0, nn.Linear: 0}

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        counts[type(module)] += output.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if type(m) in counts]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return counts[nn.Conv2d], counts[nn.Linear]


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["formula", "hash"])
@pytest.mark.parametrize("name", WITH_OUTPUTS)
def test_outputs_equal_the_released_code(name: str, tag: str) -> None:
    want = golden.arrays(name)
    network = filled(name, tag, golden.facts(name)["state_dict"])
    sums = np.array([float(t.double().sum()) for t in network.state_dict().values()])
    assert close(sums, want[f"{tag}_state_dict_sums_f64"], 1e-10)
    x = golden.images(tag)

    with torch.no_grad():
        out = network(x, preacts=True)
    assert out.pooled is not None
    assert close(out.logits, want[f"{tag}_logits_f64"], 1e-10)
    assert close(out.pooled, want[f"{tag}_pooled_f64"], 1e-10)
    for taps, key in ((out.maps, "feats"), (out.preacts, "preact_feats")):
        assert (f"{tag}_{key}_stats_f64" in want) == bool(taps)
        if taps:
            first = np.stack([t.flatten()[:8].numpy() for t in taps])
            for got, reference in zip(statistics(taps), want[f"{tag}_{key}_stats_f64"], strict=True):
                assert close(got, reference, 1e-10)
            for got, reference in zip(first, want[f"{tag}_{key}_first8_f64"], strict=True):
                assert close(got, reference, 1e-10)

    single = copy.deepcopy(network).float()
    with torch.no_grad():
        out = single(x.float())
    assert out.pooled is not None
    assert close(out.logits, want[f"{tag}_logits_f32"], 1e-5)
    assert close(out.pooled, want[f"{tag}_pooled_f32"], 1e-5)

    if tag == "hash":  # a training-mode pass, last because it moves the running statistics
        with torch.no_grad():
            assert close(network.train()(x, preacts=True).logits, want["hash_train_logits_f64"], 1e-10)
        state = network.state_dict()
        running = np.array([float(t.sum()) for key, t in state.items() if "running_" in key])
        assert close(running, want["hash_train_running_sums_f64"], 1e-10)
        counters = np.array([int(t) for key, t in state.items() if key.endswith("num_batches_tracked")])
        assert (counters == want["hash_train_num_batches_tracked"]).all()
