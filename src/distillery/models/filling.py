"""Weights into a module, and what weights no training leaves behind."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from distillery.errors import DistilleryError


def fill(module: nn.Module, weights: Mapping[str, Tensor], which: str, misfit: str, then: str = "") -> None:
    """Give a module these weights, strictly. Raises DistilleryError if they are `unsound` or do not fit.

    Args:
        which: what to call the weights; `misfit`: what is said of them if they do not fit; `then`: what to do.
    """
    if fault := unsound(weights):
        raise DistilleryError(f"{which}: {fault}{then}")
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise DistilleryError(f"{which} {misfit}: {' '.join(str(error).split())[:200]}{then}") from None


def unsound(weights: Mapping[str, Tensor]) -> str:
    """Say what no training leaves behind: negative variances, or nothing but zeros; "" if there is nothing of it."""
    for key, value in weights.items():
        if key.endswith("running_var") and bool((value < 0).any()):
            return f"{key} holds negative variances, so this file is damaged: take another copy"
    matrices = {key: value for key, value in weights.items() if value.ndim > 1 and value.is_floating_point()}
    if matrices and not any(bool(value.any()) for value in matrices.values()):
        return (
            f"{next(iter(matrices))} holds zeros alone, as all weights here do, so nothing was saved: take another file"
        )
    return ""
