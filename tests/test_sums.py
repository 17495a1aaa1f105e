"""The sums of an epoch, and the counters of normalisations, against adding up one by one."""

from __future__ import annotations

import torch
from torch import nn

from distillery.training.counters import Counters
from distillery.training.sums import Sums


def test_sums_are_those_of_adding_one_by_one_whatever_the_order_of_names() -> None:
    sums, plain = Sums(torch.device("cpu")), dict[str, torch.Tensor]()
    steps = [("loss", "a"), ("loss", "a"), ("loss", "b"), ("b", "loss", "a"), ("c",), ("loss", "a")]
    for i, names in enumerate(steps):
        if i == 3:  # as a resumed run does, with the names in another order
            sums.load(dict(sorted(sums.by_name().items(), reverse=True)))
        values = torch.rand(len(names), generator=torch.Generator().manual_seed(i))
        sums.add(names, values)
        for name, value in zip(names, values, strict=True):
            plain[name] = plain.get(name, torch.zeros((), dtype=torch.float64)) + value
    assert sums.by_name() == plain
    before = sums.vector
    sums.clear()
    sums.add(["loss", "a"], torch.tensor([1, 2]))
    assert sums.vector is before  # a captured graph adds to this very tensor
    assert {n: v.item() for n, v in sums.by_name().items()} == {"loss": 1, "a": 2, "b": 0, "c": 0}


def test_counters_advance_by_the_passes_of_a_step() -> None:
    """Twice for the one that is passed twice, not at all in evaluation mode; one without momentum counts by itself."""
    twice, own, still = nn.BatchNorm2d(2), nn.BatchNorm2d(2, momentum=None), nn.BatchNorm2d(2)
    network = nn.Sequential(twice, own, twice, still)
    network.train()
    still.eval()
    counters = Counters(network)
    for _ in range(3):
        with counters.together():
            network(torch.randn(4, 2, 3, 3))
    assert [int(norm.num_batches_tracked) for norm in (twice, own, still)] == [6, 3, 0]
    assert not twice._forward_pre_hooks
    assert twice.state_dict()["num_batches_tracked"] == 6
