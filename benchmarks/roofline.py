"""The least that a student's training step costs on this machine: its operations, each at the machine's own rates.

Counted are the operations of forward, cross-entropy and backward as torch issues them, without views, and one update of
all weights. An operation takes at least as long as its products at the rate of a large matrix product, as a copy of as
many bytes as it reads and writes, and as the smallest operation there is. The floor is the sum over all operations: no
program that issues these operations can be faster; one that fuses them can, and so can convolutions by fewer products
(Winograd). In bfloat16 all tensors but weights, gradients and momentum count two bytes a number, and no casts.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from side_by_side import captured, device, now
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from distillery import models
from distillery.study.blocks import Recipe
from distillery.training.device import set_up

UPDATE_BYTES = (
    5 * 4
)  # of a weight in SGD with momentum: weight, gradient and momentum read, weight and momentum written


@dataclass(frozen=True)
class Operation:
    flops: int
    bytes: int


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        views = func.is_view or func.overloadpacket in (torch.ops.aten.detach, torch.ops.aten._unsafe_view)
        if not views and not func._schema.name.startswith("prim::"):
            tensors = {id(t): t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)}
            formula = flop_registry.get(func.overloadpacket)
            flops = formula(*args, **(kwargs or {}), out_val=out) if formula else 0
            self.found.append(Operation(flops, sum(t.numel() * t.element_size() for t in tensors.values())))
        return out


def operations(student: str, batch: int, precision: str, classes: int = 100, size: int = 32) -> list[Operation]:
    """Those of one training step, from shapes alone."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    network = models.build(student, classes).to("meta", dtype).train()
    images = torch.empty(batch, 3, size, size, dtype=dtype, device="meta")
    labels = torch.empty(batch, dtype=torch.int64, device="meta")
    with _Counting() as counting:
        F.cross_entropy(network(images).logits.float(), labels).backward()
    weights = sum(p.numel() for p in network.parameters())
    return [*counting.found, Operation(0, weights * UPDATE_BYTES)]


@dataclass
class Rates:
    """What this machine does at best: FLOP/s, seconds of the smallest operation, bytes/s of copies by their size."""

    flops: float
    launch: float
    copies: dict[int, float]

    def seconds(self, operation: Operation) -> float:
        sizes = list(self.copies)
        size = sizes[min(bisect_left(sizes, operation.bytes), len(sizes) - 1)]
        return max(self.launch, operation.flops / self.flops, operation.bytes / self.copies[size])


def measured(precision: str) -> Rates:
    """Measure the rates now; a graph holds what is timed on CUDA, as it holds the step."""
    set_up(Recipe(precision=precision))
    where, cuda = device(), device().type == "cuda"
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    n = 8192 if cuda else 1024
    a, b = (torch.randn(n, n, device=where, dtype=dtype) for _ in range(2))
    flops = 2 * n**3 / _best(lambda: a @ b, 1)
    copies = {}
    for bits in range(14, 30 if cuda else 27, 2):
        x = torch.zeros(2 ** (bits - 3), device=where)  # half of the bytes are read, half are written
        y = torch.zeros_like(x)
        copies[2**bits] = 2**bits / _best(lambda y=y, x=x: y.copy_(x), max(1, 2 ** (22 - bits)))
    one = torch.zeros((), device=where)
    return Rates(flops, _best(lambda: one.add_(1), 200), copies)


def _best(work: Callable[[], object], times: int) -> float:
    """Seconds of one call: the best of five measurements of so many in a row."""

    def repeated() -> None:
        for _ in range(times):
            work()

    run, found = captured(repeated) if device().type == "cuda" else repeated, []
    for _ in range(5):
        start = now()
        run()
        found.append(now() - start)
    return max(min(found), time.get_clock_info("perf_counter").resolution) / times
