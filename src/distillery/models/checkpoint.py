"""Loading the state dicts that the RepDistiller and mdistiller lineages published."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from distillery.models.base import Network

SHOWN = 3  # keys named in an error message before the rest is only counted


def load_official(network: Network, state_dict: Mapping[str, Tensor]) -> None:
    """Copy an official state dict into a network of the same architecture and number of classes.

    Two habits of old checkpoints are tolerated: a `module.` prefix on every key (saved from DataParallel), and missing
    `num_batches_tracked` counters (saved before these existed), which keep the network's value. Anything else that
    does not fit exactly is refused with a ValueError, and the network is left as it was.
    """
    given = dict(state_dict)
    if given and all(key.startswith("module.") for key in given):
        given = {key.removeprefix("module."): value for key, value in given.items()}
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in given and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted]
    misshaped = [
        f"{key} {_shape(given[key])} for {_shape(wanted[key])}"
        for key in wanted
        if key in given and _shape(given[key]) != _shape(wanted[key])
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    if any(faults.values()):
        told = "; ".join(f"{fault}: {_first(keys)}" for fault, keys in faults.items() if keys)
        raise ValueError(
            f"the checkpoint does not fit this {type(network).__name__}, so take the one of the network and number of "
            f"classes that the study names ({told})"
        )
    network.load_state_dict({**wanted, **given})


def _shape(value: object) -> str:
    return "x".join(map(str, value.shape)) or "scalar" if isinstance(value, Tensor) else type(value).__name__


def _first(keys: list[str]) -> str:
    rest = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + rest
