"""Golden loss vectors: outputs of the released reference implementations, and the rules for comparing with them.

The vectors lie in `../shared/golden/losses`, or in the directory that the environment variable DISTILLERY_GOLDEN names
(any directory with the same `manifest.json`). Without them `cases` gives an empty list and the tests skip.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

Case = dict[str, Any]
ROOT = Path(os.environ.get("DISTILLERY_GOLDEN", Path(__file__).resolve().parents[2] / "shared" / "golden" / "losses"))

needs_golden = pytest.mark.skipif(
    not (ROOT / "manifest.json").is_file(),
    reason="the golden vectors (../shared/golden) are not beside this checkout",
)


@cache
def manifest() -> dict[str, Any]:
    """The manifest, or an empty one if the vectors are absent."""
    path = ROOT / "manifest.json"
    return json.loads(path.read_text()) if path.is_file() else {"methods": {}, "cases": []}


@cache
def _archive(name: str) -> dict[str, np.ndarray]:
    with np.load(ROOT / name, allow_pickle=False) as file:
        return dict(file)


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
    if want.numel() == 1:
        got, want = got.reshape(()), want.reshape(())
    assert got.shape == want.shape, f"{label} has shape {tuple(got.shape)}, the reference {tuple(want.shape)}"
    assert got.isfinite().all(), f"{label} is not finite"
    limits = tolerance(case, name)
    finite = want.isfinite()
    if limits is None or not finite.any():
        return
    got, want = got[finite], want[finite]
    rtol, atol = limits
    error, bound = (got - want).abs().max().item(), rtol * want.abs().max().item() + atol
    assert error <= bound, f"{label} is off by {error:.3g}, allowed {bound:.3g} (reference {want.abs().max():.6g})"
