"""Golden vectors: outputs of the released reference implementations, and the rules for comparing with them.

A compact set is part of the repository (`tests/vectors`, see its README). The environment variable DISTILLERY_GOLDEN
names a directory to use instead: a whole set (with `losses`, `architectures` or `training_step` in it; parts that it
lacks are taken from the repository), or loss vectors alone (with a `manifest.json`).
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Case = dict[str, Any]
VECTORS = Path(__file__).parent / "vectors"
PARTS = ("losses", "architectures", "training_step", "vision")


def folder(part: str) -> Path:
    """Where the vectors of a part lie. A misspelt DISTILLERY_GOLDEN must not pass for the repository's own set."""
    named = os.environ.get("DISTILLERY_GOLDEN")
    if not named:
        return VECTORS / part
    root = Path(named)
    if (root / "manifest.json").is_file():
        return root if part == "losses" else VECTORS / part
    if not any((root / p).is_dir() for p in PARTS):
        raise FileNotFoundError(f"DISTILLERY_GOLDEN={named}: there is neither manifest.json nor {', '.join(PARTS)}")
    return root / part if (root / part).is_dir() else VECTORS / part


@cache
def manifest() -> dict[str, Any]:
    """The manifest of the loss vectors."""
    return json.loads((folder("losses") / "manifest.json").read_text())


@cache
def _archive(name: str) -> dict[str, np.ndarray]:
    with np.load(folder("losses") / name, allow_pickle=False) as file:
        return dict(file)


def thinned(array: Any, largest: int | None) -> Any:
    """An array or tensor as it is if it has about `largest` elements or less, else about so many of them, flat.

    The step shares no factor with 10 or a power of two: it does not meet the same columns of a matrix over and over.
    """
    flat = array.reshape(-1)
    step = len(flat) // largest | 1 if largest else 1
    step += 2 if step % 5 == 0 else 0
    return array if step == 1 else flat[::step]


def cases(methods: str | list[str]) -> list[Case]:
    """All cases of the named methods, in manifest order."""
    wanted = {methods} if isinstance(methods, str) else set(methods)
    return [case for case in manifest()["cases"] if case["method"] in wanted]


def count(method: str) -> int:
    """The number of cases the manifest declares for a method."""
    return manifest()["methods"][method]["cases"]


def load(case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and expected outputs of a case; floating-point inputs come in the dtype of the case."""
    dtype = getattr(torch, case["dtype"])
    inputs: dict[str, Tensor] = {}
    for name, address in case["inputs"].items():
        file, array = address.split(":")
        tensor = torch.from_numpy(np.array(_archive(file)[array]))
        inputs[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return inputs, expected(case)


def expected(case: Case) -> dict[str, Tensor]:
    """The reference's outputs by name: scalars in float64, arrays as stored."""
    archive = _archive(manifest()["methods"][case["method"]]["npz"])
    scalars = archive[case["id"] + "__scalars"] if case["scalars"] else []
    outputs = {
        name: torch.tensor(float(value), dtype=torch.float64)
        for name, value in zip(case["scalars"], scalars, strict=True)
    }
    return outputs | {n: torch.from_numpy(np.array(archive[f"{case['id']}__{n}"])) for n in case["arrays"]}


def tolerance(case: Case, name: str) -> tuple[float, float] | None:
    """(rtol, atol) of the README for one output; None where only finiteness can be asked for."""
    single = case["dtype"] == "float32"
    gradient = name.startswith("grad_") or "_grad_" in name
    rtol, atol = (1e-4 if gradient else 2e-5, 1e-6) if single else (1e-10, 1e-12)
    rtol = max(rtol, 10 * case.get("float32_rel_err", {}).get(name, 0.0))
    if case["method"] in ("ctkd", "ctkd_ls") and name in ("grad_temp", "grad_global_T") and single:
        rtol = max(rtol, 1e-2)

    warning = case.get("conditioning_warning", "")
    if warning.startswith("the exact value is zero") or warning.startswith("gradient is zero up to rounding"):
        atol = 3e-5 if single else 1e-11
    elif warning.startswith("constant student/teacher rows whose mean is not exactly representable"):
        # Rounding noise over (1e-7 + noise): of relative size 1e-9 in float64, of order one in float32.
        if single:
            return None
        rtol, atol = 1e-6, 1e-8
    elif warning.startswith("Pearson correlation of (numerically) constant vectors"):
        if gradient:  # the same noise times 1e8
            return None
        atol = 1.0 if single else 1e-6
    elif warning.startswith("the official non-target softmax subtracts 1000"):
        # The released mask leaves the label class in; here it is left out, so nothing that holds the term can agree.
        if name in ("loss", "grad_loss", "term_nckd", "grad_term_nckd", "distiller_loss_kd", "distiller_total"):
            return None
    elif warning.startswith("one of the two subsets is empty"):
        rtol = max(rtol, 1e-6)
    elif warning.startswith("every class is masked"):
        atol = max(atol, 1e-6)
    elif warning.startswith("distances of coincident points are rounding noise in float32") and single:
        return None
    elif warning.startswith("computed in float32 by the official code (SVD)"):
        rtol = 1e-2 if gradient else 1e-3
    return rtol, atol


def check(case: Case, name: str, value: Tensor | float) -> None:
    """Assert that a value of ours is finite and, where the reference is finite, agrees with it at its tolerance.

    The comparison is in the max-norm: |ours - reference| <= rtol * max|reference| + atol. Entries at which the
    reference is NaN or infinite only have to be finite here.
    """
    label = f"{case['method']}/{case['id']}: {name}"
    want = expected(case)[name].double()
    got = torch.as_tensor(value, dtype=torch.float64).detach()
    assert got.isfinite().all(), f"{label} is not finite"
    got = thinned(got, manifest().get("largest_output"))
    if want.numel() == got.numel() == 1:
        got, want = got.reshape(()), want.reshape(())
    assert got.shape == want.shape, f"{label} has shape {tuple(got.shape)}, the reference {tuple(want.shape)}"
    limits = tolerance(case, name)
    finite = want.isfinite()
    if limits is None or not finite.any():
        return
    got, want = got[finite], want[finite]
    rtol, atol = limits
    error, bound = (got - want).abs().max().item(), rtol * want.abs().max().item() + atol
    assert error <= bound, f"{label} is off by {error:.3g}, allowed {bound:.3g} (reference {want.abs().max():.6g})"
