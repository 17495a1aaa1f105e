"""From a recipe to torch's optimiser: groups of parameters, and a state that exists before the first step."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from distillery.recipe.base import Optimizer
from distillery.records.io import DistilleryError
from distillery.study.blocks import Recipe

Named = list[tuple[str, nn.Parameter]]

# Parameters of two dimensions or more that are no matrices: position embeddings and tables of relative positions, class
# and distillation tokens, as timm, torchvision and the transformers library name them.
_TOKENS = re.compile(r"pos(ition)?_?embed|position_bias_table|(cls|class|dist|distill|distillation)_token")


def make_optimizer(
    named: Named, recipe: Recipe, device: torch.device, undecayed: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Build the recipe's optimiser for some named parameters. On CUDA its rate is a tensor, which captured graphs read.

    `undecayed`: names, with wildcards, of further ones without weight decay where the recipe decays matrices alone.

    Raises DistilleryError if its state cannot be saved.
    """
    part: Optimizer = recipe.part("optimizer")
    lr = torch.tensor(recipe.lr, device=device) if device.type == "cuda" else recipe.lr
    optimizer = part.build(groups(named, recipe, undecayed), lr)
    _begin(optimizer, part.starts)
    return optimizer


def groups(named: Named, recipe: Recipe, undecayed: Collection[str] = ()) -> list[dict[str, Any]]:
    """Sort parameters by weight decay: on `all` of them, or on `matrices` and convolution kernels alone.

    The latter is timm's `param_groups_weight_decay`: none on biases, normalisations and whatever else has one
    dimension, nor on what a network itself says (`undecayed`). For networks that say nothing, torchvision's for one,
    position embeddings and class tokens are known by their names; and parts of a network are asked too, where timm asks
    the whole. So timm decays a little more in 5 of 49 of its networks that were compared: the position embeddings of
    visformer, BoTNet and HaloNet, the temperatures of XCiT and EdgeNeXt.
    """
    if recipe.decay == "all":
        return [{"params": [p for _, p in named], "weight_decay": recipe.weight_decay}]
    kept: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, p in named:
        spared = p.ndim < 2 or name.endswith(".bias") or _TOKENS.search(name)
        (free if spared or any(fnmatchcase(name, said) for said in undecayed) else kept).append(p)
    found = [{"params": kept, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in found if group["params"]]


def trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of an optimiser, in its order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)  # in place: a captured graph reads it
        else:
            group["lr"] = rate


@torch.no_grad()
def _begin(optimizer: torch.optim.Optimizer, starts: Mapping[str, float]) -> None:
    """Let the state exist now, so that checkpoints and graphs have something to write to.

    torch makes it in the first step. So one is made, with gradients of zero, and all that it did is undone: what is
    computed then from a state of zeros is what torch's lazy one computes.
    """
    parameters = trained(optimizer)
    before, settings = [p.clone() for p in parameters], _settings(optimizer)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for p, old in zip(parameters, before, strict=True):
        p.copy_(old)
    name = type(optimizer).__name__
    if changed := sorted(
        {k for old, new in zip(settings, _settings(optimizer), strict=True) for k in old if old[k] != new[k]}
    ):
        raise DistilleryError(f"optimizer {name} changes {changed[0]!r} of its groups, which no checkpoint holds")
    for state in optimizer.state.values():
        for key, value in state.items():
            if not isinstance(value, Tensor):
                raise DistilleryError(f"optimizer {name} keeps {key!r} as {type(value).__name__}: make it a tensor")
            value.fill_(starts.get(key, 0.0))


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{k: v for k, v in g.items() if k != "params" and not isinstance(v, Tensor)} for g in optimizer.param_groups]
