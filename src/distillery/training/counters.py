"""How many batches a network's normalisations have seen, counted together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

COUNTER = "num_batches_tracked"


class Counters:
    """The batch counters of all batch normalisations of some networks, advanced by one operation a step.

    torch lets each normalisation add one to its own in every forward pass: 10 of the 153 kernels of a captured step of
    resnet8x4, 21 of the 255 of resnet20. Nothing reads them where the normalisation has a momentum; one without keeps
    its own. A step must pass through each normalisation as often as the first one did, as a captured step does.
    """

    def __init__(self, *networks: nn.Module) -> None:
        found = (m for network in networks for m in network.modules() if isinstance(m, _BatchNorm))
        self.norms = [m for m in found if m.momentum is not None and getattr(m, COUNTER, None) is not None]
        self.passes: list[int] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Take the counters away from a training step, and advance them by what it would have added when it ends."""
        counters: list[Any] = [getattr(norm, COUNTER) for norm in self.norms]
        seen = [0] * len(self.norms)
        with ExitStack() as stack:
            for i, norm in enumerate(self.norms):
                stack.callback(setattr, norm, COUNTER, counters[i])
                setattr(norm, COUNTER, None)
                if self.passes is None:
                    stack.callback(norm.register_forward_pre_hook(_counting(seen, i)).remove)
            yield
        if self.passes is None:
            self.passes = seen
        if counters:
            torch._foreach_add_(counters, self.passes)


def _counting(seen: list[int], i: int) -> Any:
    def count(norm: nn.Module, _: Any) -> None:
        seen[i] += norm.training

    return count
