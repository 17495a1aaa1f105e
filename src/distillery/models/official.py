"""Loading the state dicts that others trained: those of the RepDistiller and mdistiller lineages, and their like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from distillery.errors.words import some
from distillery.models import NETWORKS, build
from distillery.models.base import Network
from distillery.models.filling import unsound
from distillery.records.io import below

POSITIONS = re.compile(r"pos(ition)?_?embed")  # one row for each patch of an image
COUNTER = ".num_batches_tracked"
# What wrappers put before every name: DataParallel and DDP, torch.compile, distillers, Lightning and its like.
PREFIXES = (
    *("module.", "_orig_mod.", "student.", "student_model.", "model.", "net.", "network.", "backbone."),
    "teacher.",
)


def load_official(network: Network, state_dict: Mapping[str, Tensor]) -> None:
    """Copy a foreign state dict into a network of the same architecture and number of classes.

    Where a release names its weights in another way, the network knows it (`Network.renamed`). What is tolerated: the
    prefixes of wrappers, with the wrapper's other modules beside the network (a teacher beside the student); missing
    `num_batches_tracked` counters (saved before these existed), which keep the network's value; half and double
    precision, which are cast. Anything else that does not fit exactly is refused with a ValueError, as are weights that
    are not finite or `unsound`, and the network is left as it was.
    """
    wanted = network.state_dict()
    found = without_prefixes(state_dict, wanted)
    given = {name: value for key, value in found.items() if (name := network.renamed(key))}
    missing = [key for key in wanted if key not in given and not key.endswith(COUNTER)]
    unexpected = [key for key in given if key not in wanted]
    misshaped = [
        f"{key} {_shape(given[key])} for {_shape(wanted[key])}"
        for key in wanted
        if key in given and _shape(given[key]) != _shape(wanted[key])
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    if any(faults.values()):
        told = "; ".join(f"{fault}: {some(keys)}" for fault, keys in faults.items() if keys)
        known = identify(given)
        if not (missing or unexpected or known) and (widths := _widths(given, wanted)):
            raise ValueError(f"the checkpoint is for {widths[0]} classes, and the data has {widths[1]}")
        name = getattr(network, "name", type(network).__name__)
        if not (missing or unexpected or known) and all(POSITIONS.search(fault) for fault in misshaped):
            raise ValueError(
                f"the checkpoint is for images of another size than this {name} is built for ({some(misshaped)}): "
                "take weights for that size, or the network of timm's whose name says yours"
            )
        raise ValueError(
            f"the checkpoint does not fit this {name}, so take the one of the network and number of "
            f"classes that the study names ({told})" + (f"; these are the weights of a {known}" if known else "")
        )
    for key, value in given.items():
        if wanted[key].is_floating_point() and not value.is_floating_point():
            raise ValueError(f"{key} holds {value.dtype} numbers, so these weights are quantised: take others")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{key} holds NaN or infinity, so this training diverged: take an earlier checkpoint")
    if fault := unsound(given):
        raise ValueError(fault)
    network.load_state_dict({**wanted, **given})


def without_prefixes(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take wrappers' prefixes off until a name is one that the network has, and leave out what lies beside them."""
    given = dict(given)
    while not any(key in wanted for key in given):
        prefix = next((p for p in PREFIXES if any(key.startswith(p) for key in given)), None)
        if prefix is None:
            break
        given = below(given, prefix)
    return given


def identify(given: Mapping[str, Tensor]) -> str | None:
    """Name the network that a state dict belongs to, with its classes and channels; None if it is none of ours."""
    found = _shapes(given)
    for name, (keys, head, stem) in _known().items():
        if found.keys() == keys and found[head]:
            seen = found[stem][1:2] if stem else (1, 3)  # without a convolution nothing says how many channels
            for classes, channels in ((found[head][0], channels) for channels in seen):
                if classes and channels and found == _shapes(_without_numbers(name, classes, channels).state_dict()):
                    plural = "s" if channels > 1 else ""
                    return f"{name} for {classes} classes and images of {channels} channel{plural}"
    return None


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    tensors = {key: value for key, value in weights.items() if isinstance(value, Tensor)}
    return {key: tuple(value.shape) for key, value in tensors.items() if not key.endswith(COUNTER)}


def _without_numbers(name: str, classes: int, channels: int) -> Network:
    with torch.device("meta"):
        return build(name, classes, channels)


@cache
def _known() -> dict[str, tuple[set[str], str, str | None]]:
    """Of every network the names of its weights, and which of them are the head's and the first convolution's."""
    known = {}
    for name in NETWORKS:
        network = _without_numbers(name, 10, 3)
        weights = {id(p): key for key, p in network.named_parameters()}
        stem = next((m.weight for m in network.modules() if isinstance(m, nn.Conv2d)), None)
        keys = set(_shapes(network.state_dict()))
        known[name] = keys, weights[id(network.head.weight)], None if stem is None else weights[id(stem)]
    return known


def _widths(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """The classes of two state dicts that differ in the width of their last layer alone."""
    both = [(given[key], wanted[key]) for key in wanted if key in given]
    differing = [(a.shape, b.shape) for a, b in both if isinstance(a, Tensor) and a.shape != b.shape]
    widths = {(a[:1], b[:1]) for a, b in differing if a[1:] == b[1:]}
    if len(differing) != 2 or len(widths) != 1 or not all(a[1:] == b[1:] for a, b in differing):
        return None
    [(mine, theirs)] = widths
    return mine[0], theirs[0]


def _shape(value: object) -> str:
    return "x".join(map(str, value.shape)) or "scalar" if isinstance(value, Tensor) else type(value).__name__
