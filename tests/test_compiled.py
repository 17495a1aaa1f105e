"""`recipe.compile: true`: inductor's kernels compute what the network's own operations do, and are kept for others."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from spawned import exit_code
from test_graph_step import RECIPE, Rehearsal, arrays, digits, equal, train  # noqa: F401 (fixtures)
from torch import nn

from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.study.blocks import Recipe
from distillery.training import loop
from distillery.training.compiled import Compiled, counted, share_cache


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(2, 3)

    def forward(self, images: torch.Tensor, preacts: bool = False) -> torch.Tensor:
        return self.head(torch.relu(self.norm(images) + images).mean((2, 3)))


@pytest.mark.slow
def test_inductor_computes_the_same_and_its_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a new process: what other tests left in torch's compiler decides what it takes for the same graph."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert exit_code(_compiled_twice, tmp_path) == 0


@pytest.mark.slow
def test_dropout_draws_the_same_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert exit_code(_dropped, tmp_path) == 0


class Dropping(Small):
    def forward(self, images: torch.Tensor, preacts: bool = False) -> torch.Tensor:
        return super().forward(nn.functional.dropout(images, 0.5, self.training))


def _dropped(tmp_path: Path) -> None:
    share_cache(tmp_path)
    torch.manual_seed(0)
    images, network = torch.randn(16, 2, 5, 5), Dropping()
    found = []
    for see in (network, Compiled(network)):
        torch.manual_seed(5)
        found.append(see(images, preacts=False))
    torch.testing.assert_close(found[1], found[0])


def _compiled_twice(tmp_path: Path) -> None:
    share_cache(tmp_path)
    torch.manual_seed(0)
    images, found = torch.randn(4, 2, 5, 5), []
    network = Small()
    begun = {k: v.clone() for k, v in network.state_dict().items()}
    before = counted()
    for see in (network, Compiled(network), None):
        if see is None:  # as in a new process
            torch.compiler.reset()
            see, middle = Compiled(network), counted()
        network.load_state_dict(begun)
        network.zero_grad()
        out = see(images, preacts=False)
        out.square().sum().backward()
        found.append([out, network.norm.running_mean.clone(), *(p.grad for p in network.parameters())])
    torch.testing.assert_close(found[1], found[0])
    assert all(map(torch.equal, found[1], found[2]))
    assert any(tmp_path.iterdir())
    assert middle["anew"] > before["anew"]
    assert counted()["anew"] == middle["anew"] and counted()["from_cache"] > middle["from_cache"]


@pytest.mark.slow
def test_the_captured_step_takes_the_compiled_student(
    digits: Dataset,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With dynamo's own backend, which runs the traced operations as they are: the same bits, counters included."""
    weights = train(digits, RECIPE)[1]
    monkeypatch.setattr(loop, "Step", Rehearsal)
    calls = []

    def traced(graph: torch.fx.GraphModule, inputs: object) -> object:
        calls.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=traced))
    assert equal(weights, train(digits, RECIPE.updated({"compile": True}))[1])
    assert calls


@pytest.mark.slow
def test_what_does_not_compile_is_said_in_one_sentence() -> None:
    def broken(graph: object, inputs: object) -> object:
        raise RuntimeError("no compiler here")

    network = nn.Linear(2, 2)
    compiled = Compiled(network)
    compiled.network = torch.compile(Small(), backend=broken)
    with pytest.raises(DistilleryError, match=r"the student cannot be compiled .*no compiler.*recipe.compile: false"):
        compiled(torch.ones(1, 2, 3, 3))


def test_the_key_is_part_of_a_recipe_only_where_it_acts() -> None:
    assert "compile" not in Recipe().effective()
    assert Recipe(compile=True).effective() == Recipe().effective() | {"compile": True}
