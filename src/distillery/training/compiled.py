"""A student compiled by torch.compile (inductor): `recipe.compile: true`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillery import settings
from distillery.errors import DistilleryError
from distillery.models.base import Outputs


class Compiled:
    """What a network computes in training, in fewer and larger kernels; weights and modules stay the network's own.

    Normalisation, activation and addition become one kernel, which removes a third of the bytes that a CIFAR network
    moves. Sums are taken in another order, so the last bits differ from the uncompiled network's; random numbers (of
    dropout) are the same. Every shape is compiled for itself: a run has two, whole batches and the last one.
    """

    def __init__(self, network: nn.Module) -> None:
        import torch._inductor.config as inductor  # seconds, which only those who compile are to wait

        inductor.fallback_random = True  # inductor's own generator draws others
        self.network = torch.compile(network, dynamic=False)

    def __call__(self, inputs: Any, preacts: bool = False) -> Outputs:
        """Raises DistilleryError if there is no compiler, or if the network does not compile."""
        try:
            # Or a network that is compiled over and over would at some time silently run as it is.
            with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
                outputs: Outputs = self.network(inputs, preacts=preacts)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            said = " ".join(str(error.__cause__ or error).split())[:200]
            raise DistilleryError(f"the student cannot be compiled ({said}): set `recipe.compile: false`") from error
        return outputs


def share_cache(folder: Path) -> None:
    """Keep compiled kernels in a folder, for all jobs that compile the same (unless TORCHINDUCTOR_CACHE_DIR is set)."""
    settings.set_default("TORCHINDUCTOR_CACHE_DIR", str(folder.resolve()))


def counted() -> dict[str, int]:
    """Graphs that this process asked the cache for: how many it had, and how many were compiled anew."""
    found = torch._dynamo.utils.counters["inductor"]
    return {
        "from_cache": found["fxgraph_cache_hit"],
        "anew": found["fxgraph_cache_miss"] + found["fxgraph_cache_bypass"],
    }
