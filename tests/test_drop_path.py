"""Drop path: timm's and torchvision's own rates, others linear in the depth; what is refused; what training does."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from small_study import STUDY
from torch import Tensor, nn

from distillery import models
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.models.base import Network, Outputs
from distillery.models.drop_path import rate_of, set_drop_path
from distillery.pipeline.check import check, rehearse
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.training.loop import fit
from distillery.training.parallel import Ranks


def rates(module: nn.Module) -> dict[str, float]:
    found = {path: m for path, m in module.named_modules() if type(m).__name__ in ("DropPath", "StochasticDepth")}
    return {path: rate_of(m) for path, m in found.items()}


class Bare(Network):
    """A network of timm's or torchvision's without the adapter's look at it, which takes seconds."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto", "mobilenetv3_small_050", "xcit_nano_12_p16_224"]
)
def test_networks_of_timm_get_what_timm_gives_them(name: str) -> None:
    """Rates, places, and so the same numbers from the same generator; whatever was set before."""
    network = models.build(f"timm/{name}", 10)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    seed = torch.get_rng_state()
    for rate in (0.3, 0.1):
        set_drop_path(network, rate)
        reference = timm.create_model(name, num_classes=10, drop_path_rate=rate)
        assert rates(network.get_submodule("module")) == rates(reference) != {}
        torch.set_rng_state(seed)
    assert torch.equal(torch.get_rng_state(), seed)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    reference.load_state_dict(network.get_submodule("module").state_dict())
    images = torch.randn(4, 3, 224, 224)
    logits = []
    for module in (network.train(), reference.train()):
        torch.manual_seed(3)
        with torch.no_grad():
            out = module(images)
        logits.append(out.logits if isinstance(out, Outputs) else out)
    assert torch.equal(*logits)
    set_drop_path(network, 0.0)
    assert not any(rates(network).values())


def test_networks_of_torchvision_keep_the_proportions_of_their_rates() -> None:
    with torch.device("meta"):
        network = Bare(torchvision.models.convnext_tiny())
        reference = torchvision.models.convnext_tiny(stochastic_depth_prob=0.4)
    usual = rates(network)
    set_drop_path(network, 0.4)
    assert list(rates(network).values()) == pytest.approx(list(rates(reference).values()), rel=1e-6)
    assert max(usual.values()) == pytest.approx(0.1) and max(rates(network).values()) == pytest.approx(0.4)


class DropPath(nn.Module):
    drop_prob = 0.0


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = DropPath(), DropPath()


class Deep(Network):
    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(Block(), nn.Identity()) for _ in range(depth)])


def test_others_rise_linearly_from_block_to_block() -> None:
    network = Deep()
    set_drop_path(network, 0.2)
    expected = [0.0, 0.0, 0.05, 0.05, 0.1, 0.1, 0.15, 0.15, 0.2, 0.2]
    assert list(rates(network).values()) == pytest.approx(expected, rel=1e-6)
    set_drop_path(network, 0.4)
    assert list(rates(network).values()) == pytest.approx([2 * r for r in expected], rel=1e-6)
    assert list(rates(copy.deepcopy(network)).values()) == list(rates(network).values())
    single = Deep(1)
    set_drop_path(single, 0.2)
    assert [*rates(single).values()] == [0.2, 0.2]


def test_a_network_without_it_is_refused_in_one_sentence() -> None:
    with pytest.raises(DistilleryError, match=r"^ResNet has no drop path: override `drop_path: null` for it$"):
        set_drop_path(models.build("resnet8_w2", 10, 1), 0.1)


OWN = """
from torch import nn

class DropPath(nn.Module):
    drop_prob = 0.0

    def forward(self, x):
        if not self.training or self.drop_prob == 0.0:
            return x
        return x * x.new_empty(len(x), 1).bernoulli_(1 - self.drop_prob) / (1 - self.drop_prob)

class Own(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.inner, self.path = nn.Linear(64 * in_channels, 64), DropPath()
        self.head = nn.Linear(64, num_classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(x + self.path(self.inner(x)))
"""


def test_a_study_may_set_it_for_networks_that_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    own = {"t-s": {"teacher": "t", "student": "own.py:Own", "recipe": {"drop_path": 0.5}}}
    rehearse(check(STUDY | {"pairs": own}))
    everywhere = STUDY | {"pairs": {"t-s": {"teacher": "t", "student": "own.py:Own"}}}
    everywhere |= {"recipe": STUDY["recipe"] | {"drop_path": 0.5}}
    with pytest.raises(DistilleryError) as refused:
        rehearse(check(everywhere))
    sentence = "params.yaml: teachers.t: drop_path: ResNet has no drop path: override `drop_path: null` for it"
    assert str(refused.value) == sentence
    rehearse(check(everywhere | {"teachers": {"t": {"architecture": "resnet8_w8", "recipe": {"drop_path": None}}}}))
    with pytest.raises(DistilleryError, match=r"recipe.drop_path: less than 1, not 1"):
        check(STUDY | {"recipe": STUDY["recipe"] | {"drop_path": 1}})


def test_training_drops_at_this_rate_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs are equal, another rate gives other weights; without the key the network keeps what it has."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    images, labels = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8), torch.arange(24) % 4
    facts = {"class_names": tuple("abcd"), "scale": 255.0, "mean": (0.5,), "std": (0.3,)}
    data = Dataset(images, labels, images, labels, rows=torch.arange(24), **facts)

    def trained(**changes: Any) -> tuple[Tensor, list[float]]:
        trainee = assemble("own.py:Own", Method(objective="ce"), data, [], 0)
        plain = Recipe(epochs=2, batch_size=8, milestones=(), augmentation={"pad": 0, "flip": False}, **changes)
        fit(trainee, data.loader(plain), None, plain, 0)
        return trainee.student.head.weight.detach(), [*rates(trainee.student).values()]

    (first, rate), (again, _) = trained(drop_path=0.5), trained(drop_path=0.5)
    assert rate == [0.5] and torch.equal(first, again)
    assert not torch.equal(trained(drop_path=0.2)[0], first)
    none, untouched = trained()
    assert untouched == [0.0] and torch.equal(none, trained(drop_path=0.0)[0]) and not torch.equal(none, first)


def test_recipes_without_it_keep_their_identity() -> None:
    assert "drop_path" not in Recipe().effective() and Recipe(drop_path=0.1).effective()["drop_path"] == 0.1
    assert Recipe(drop_path=0.1).updated({"drop_path": None}).effective() == Recipe().effective()


def test_each_process_drops_its_own_paths_and_then_all_go_on_alike() -> None:
    """Batch by batch, whatever was drawn before; and again after a checkpoint, which keeps the generator's state."""

    def draws(rank: int, size: int, start: int, before: int = 0) -> tuple[list[float], list[float]]:
        torch.manual_seed(7)
        torch.rand(before)
        state = torch.get_rng_state()
        torch.manual_seed(0)
        torch.set_rng_state(state)
        with Ranks(rank, size).own_draws(slice(start, start + 8), torch.device("cpu")):
            own = torch.rand(4).tolist()
        return own, torch.rand(4).tolist()

    (first, after), (second, alike) = draws(0, 2, 0), draws(1, 2, 0)
    assert first != second and after == alike
    assert draws(0, 2, 0, before=3)[0] == first and draws(0, 2, 8)[0] != first
    torch.manual_seed(7)
    assert (torch.rand(4).tolist(), torch.rand(4).tolist()) == draws(0, 1, 0), "one process is left alone"
