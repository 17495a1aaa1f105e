"""The golden vectors of ranking: outputs of the released code of UnKD. `tests/vectors/ranking`, or another set.

DISTILLERY_GOLDEN names a directory; vectors are taken from `related/unkd`, `unkd` or `ranking` in it, if there is one.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden import VECTORS, thinned
from torch import Tensor

from distillery.tasks.ranking.interactions import Interactions, Pairs

Case = dict[str, Any]


@cache
def folder() -> Path:
    named = os.environ.get("DISTILLERY_GOLDEN")
    places = [Path(named) / part for part in ("related/unkd", "unkd", "ranking")] if named else []
    return next((place for place in places if (place / "manifest.json").is_file()), VECTORS / "ranking")


@cache
def manifest() -> dict[str, Any]:
    return json.loads((folder() / "manifest.json").read_text())


@cache
def _archive(name: str) -> dict[str, np.ndarray]:
    with np.load(folder() / name, allow_pickle=False) as file:
        return dict(file)


def cases(method: str, output: str = "") -> list[Case]:
    """The cases of a method that have an output of this name."""
    known = [case for case in manifest()["cases"] if case["method"] == method]
    return [case for case in known if not output or output in (*case["scalars"], *case["arrays"])]


def inputs(case: Case) -> dict[str, Tensor]:
    """Real numbers in the dtype of the case, whole ones as int64."""
    found = {}
    for name, address in case["inputs"].items():
        value = torch.from_numpy(_archive("inputs.npz")[address.split(":")[1]])
        found[name] = value.to(getattr(torch, case["dtype"])) if value.is_floating_point() else value.long()
    return found


def train_pairs(case: Case) -> Pairs:
    data = inputs(case)
    return Pairs.of(data["train_users"], data["train_items"], case["hyper"]["n_users"])


def interactions(case: Case) -> Interactions:
    nobody = torch.empty(0, dtype=torch.int64)
    empty = Pairs.of(nobody, nobody, case["hyper"]["n_users"])
    return Interactions(case["hyper"]["n_users"], case["hyper"]["n_items"], train_pairs(case), empty, empty)


def expected(case: Case, name: str) -> Tensor:
    archive = _archive("unkd.npz")
    if name in case["scalars"]:
        return torch.tensor(archive[f"{case['id']}__scalars"][case["scalars"].index(name)])
    return torch.from_numpy(np.array(archive[f"{case['id']}__{name}"]))


def check(case: Case, name: str, value: Tensor) -> None:
    """Ours is finite and agrees with the reference in the max-norm: to 1e-9 in float64, 4e-5 in float32.

    With large embeddings the released RD and CD are wrong or infinite in float32: there ours is compared with the
    float64 case of the same inputs. In float64 that CD has lost ten digits of 1 - sigmoid + 1e-10.
    """
    label, got = f"{case['id']}: {name}", value.detach().double()
    assert got.isfinite().all(), f"{label} is not finite"
    single = case["dtype"] == "float32"
    rtol = 4e-5 if single else 1e-9
    if "large" in case["input_class"] and any(term in name.split("_") for term in ("rd", "cd")):
        case = next(c for c in manifest()["cases"] if c["id"] == case["id"].replace("f32", "f64"))
        rtol = max(rtol, 1e-6) if "cd" in name else rtol
    want = expected(case, name).double()
    got = thinned(got, manifest().get("largest_output")) if got.shape != want.shape else got
    assert got.shape == want.shape and want.isfinite().all(), label
    error = (got - want).abs().max().item()
    bound = rtol * want.abs().max().item() + (1e-6 if single else 1e-12)
    assert error <= bound, f"{label} is off by {error:.3g}, allowed {bound:.3g}"
