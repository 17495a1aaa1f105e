"""Networks by name, and official checkpoints."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from distillery.models import build
from distillery.models.official import load_official
from distillery.registry import Unknown


def test_unknown_names_are_answered_with_the_nearest() -> None:
    for wrong, nearest in (("ResNet50", "resnet50"), ("wrn40_2", "wrn_40_2"), ("ShuffleV1", "shufflenet_v1")):
        with pytest.raises(Unknown, match=f"unknown architecture '{wrong}': did you mean '{nearest}'"):
            build(wrong, 10)


def test_the_names_come_without_torch() -> None:
    code = "import sys, distillery.models as m; assert list(m.NETWORKS) and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_official_checkpoints_of_old_frameworks_load() -> None:
    torch.manual_seed(0)
    source, target = build("resnet8", 10), build("resnet8", 10)
    old = {f"module.{k}": t for k, t in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    images = torch.randn(2, 3, 32, 32)
    source.eval(), target.eval()
    assert not torch.equal(source(images).logits, target(images).logits)
    load_official(target, old)
    assert torch.equal(source(images).logits, target(images).logits)


def test_official_checkpoints_that_do_not_fit_are_refused() -> None:
    network = build("resnet8", 100)
    before = {key: t.clone() for key, t in network.state_dict().items()}
    good = network.state_dict()

    def message(state: dict) -> str:
        with pytest.raises(ValueError, match="the checkpoint does not fit this ResNet") as caught:
            load_official(network, state)
        return str(caught.value)

    assert "missing: conv1.weight)" in message({k: t for k, t in good.items() if k != "conv1.weight"})
    assert "unexpected: epoch)" in message({**good, "epoch": torch.tensor(3)})
    assert "of another shape: fc.weight 10x64 for 100x64, fc.bias 10 for 100)" in message(
        {**good, "fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}
    )
    assert "of another shape: fc.bias list for 100)" in message({**good, "fc.bias": [0.0] * 100})
    told = message(build("resnet50", 100).state_dict())
    assert "missing: " in told and " more; unexpected: " in told and "\n" not in told and len(told) < 700
    message({"model": good})
    message({})
    assert all(torch.equal(t, before[key]) for key, t in network.state_dict().items()), "a refusal changed the network"


def test_position_embeddings_of_another_size_are_called_that() -> None:
    network = build("deit_w48_p2", 10, 1)
    weights = network.state_dict()
    weights["pos_embed"] = torch.zeros(1, 40, 48)
    with pytest.raises(ValueError, match=r"for images of another size than this .*\(pos_embed 1x40x48 for"):
        load_official(network, weights)


def test_weights_that_no_training_leaves_behind_are_refused() -> None:
    network = build("resnet8", 10)
    kept = {key: value.clone() for key, value in network.state_dict().items()}
    variance = next(key for key in kept if key.endswith("running_var"))
    with pytest.raises(ValueError, match=f"^{variance} holds negative variances"):
        load_official(network, {**kept, variance: kept[variance] - 2})
    with pytest.raises(ValueError, match=r"^conv1\.weight holds zeros alone"):
        load_official(network, {key: torch.zeros_like(value) for key, value in kept.items()})
    assert all(torch.equal(value, kept[key]) for key, value in network.state_dict().items())
    load_official(network, {**kept, "conv1.weight": torch.zeros_like(kept["conv1.weight"])})  # one may be zero
