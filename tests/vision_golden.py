"""Golden vectors beyond CIFAR networks (tests/vectors/vision), and the rules that make their weights and inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import golden
import numpy as np
import torch
from models_golden import uniform as hashed
from torch import Tensor

from distillery.models import build
from distillery.models.base import Network
from distillery.models.official import load_official

Case = dict[str, Any]
# By the name that the vectors give a network: ours. The others go by the same name.
OURS = {"ls_deit_ti": "deit_ti_distilled", "ls_deit_ti_plain": "deit_ti", "ls_pit_ti": "pit_ti"}
OURS |= {"ls_t2t_vit_7": "t2t_vit_7", "ls_pvt_ti": "pvt_ti", "ls_resnet56": "resnet56"}
OURS |= {"imagenet_mobilenet_v1": "mobilenet_v1"}


def ours(name: str) -> str:
    """Our name of a network."""
    return OURS.get(name, name)


SHRUNK = {"weight": 1.0, "weight_fifth": 0.2, "weight_tenth": 0.1}


@cache
def networks() -> dict[str, Any]:
    """What there is, by the vectors' names; a set with further outputs of known networks need not list them again."""
    here = json.loads((golden.VECTORS / "vision" / "architectures" / "index.json").read_text())
    return {name: facts for name, facts in here.items() if name != "largest_output"}


@cache
def facts(name: str) -> dict[str, Any]:
    """Keys, shapes and kinds of a network's weights, and its sizes."""
    found = golden.folder("vision") / "architectures" / f"{name}.json"
    path = found if found.is_file() else golden.VECTORS / "vision" / "architectures" / f"{name}.json"
    return json.loads(path.read_text())


def arrays(name: str) -> dict[str, np.ndarray] | None:
    """The outputs of a network, None if the set has none of it."""
    path = golden.folder("vision") / "architectures" / f"{name}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _objectives() -> Path:
    """Where the vectors of objectives lie; a set of networks alone leaves them to the repository."""
    found = golden.folder("vision") / "objectives"
    return found if found.is_dir() else golden.VECTORS / "vision" / "objectives"


@cache
def manifest() -> dict[str, Any]:
    return json.loads((_objectives() / "manifest.json").read_text())


def cases(method: str) -> list[Case]:
    return [case for case in manifest()["cases"] if case["method"] == method]


@cache
def _archive(name: str) -> dict[str, np.ndarray]:
    with np.load(_objectives() / name, allow_pickle=False) as file:
        return dict(file)


def outputs(case: Case) -> dict[str, np.ndarray]:
    """The reference's outputs by name, scalars among them."""
    found = _archive(case["npz"])
    scalars = found[f"{case['id']}__scalars"] if case["scalars"] else []
    values = {name: np.asarray(value) for name, value in zip(case["scalars"], scalars, strict=True)}
    return values | {name: found[f"{case['id']}__{name}"] for name in case["arrays"]}


RULE = re.compile(
    r"(relu of )?rule (images|uniform)\(\(([\d,]+)\), k=([\d+n]+)(?:, (-?\d+), (-?\d+))?\)"
    r"(?: / sqrt\((\d+)\))?"
)


def ruled(text: str, n: int = 0) -> Tensor:
    """The tensor that a case describes as "rule uniform((4,440,7,7), k=200+n, -3, 3)", and variations."""
    found = RULE.search(text)
    assert found, text
    k = sum(n if part == "n" else int(part) for part in found[4].split("+"))
    shape = tuple(map(int, found[3].split(",")))
    made = images(shape, k) if found[2] == "images" else uniform(shape, k, float(found[5]), float(found[6]))
    made = made.relu() if found[1] else made
    return made / int(found[7]) ** 0.5 if found[7] else made


def uniform(shape: tuple[int, ...], k: int, low: float, high: float) -> Tensor:
    """Float64 numbers between `low` and `high`, by rule."""
    return torch.from_numpy(low + (high - low) * hashed(int(np.prod(shape)), k)).reshape(shape)


def images(shape: tuple[int, ...], k: int = 7) -> Tensor:
    """Float64 images with mean 0 and deviation 1, by rule."""
    return uniform(shape, k, -(3**0.5), 3**0.5)


def values(kind: str, shape: tuple[int, ...], k: int) -> Tensor:
    """The float64 values of the k-th state-dict entry."""
    i = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    match kind:
        case "weight" | "weight_fifth" | "weight_tenth":
            bound = SHRUNK[kind] * (6 / np.prod(shape[1:])) ** 0.5
            return uniform(shape, k, -bound, bound)
        case "bias":
            return uniform(shape, k, -0.1, 0.1)
        case "token":
            return uniform(shape, k, -0.5, 0.5)
        case "norm_weight":
            flat = 1 + 0.1 * torch.cos(0.7 * k + 0.013 * i)
        case "norm_bias":
            flat = 0.1 * torch.sin(0.7 * k + 0.013 * i)
        case "running_mean":
            flat = 0.1 * torch.sin(0.3 * k + 0.017 * i)
        case "running_var":
            flat = 1 + 0.2 * torch.cos(0.3 * k + 0.017 * i) ** 2
        case "counter":
            flat = torch.zeros_like(i)
        case _:
            raise ValueError(f"the golden vectors have no entries of kind {kind!r}")
    return flat.reshape(shape)


def released(name: str, network: Network) -> dict[str, Tensor]:
    """The state dict that the released code would save, filled by rule; `kept` entries are the network's own."""
    own: Mapping[str, Tensor] = network.state_dict()
    return {
        e["key"]: own[network.renamed(e["key"])] if e["kind"] == "kept" else values(e["kind"], tuple(e["shape"]), k)
        for k, e in enumerate(facts(name)["state_dict"])
    }


def filled(name: str, dtype: torch.dtype = torch.float64) -> Network:
    """Our network with the golden weights, loaded as a released checkpoint is."""
    network = build(ours(name), facts(name)["num_classes"]).to(dtype).eval()
    load_official(network, released(name, network))
    return network


def agrees(got: Tensor | np.ndarray | float, want: np.ndarray, rtol: float, atol: float = 1e-12) -> None:
    """Assert agreement in the maximum norm; `want` may be thinned (see golden.thinned)."""
    got = torch.as_tensor(got, dtype=torch.float64).detach().numpy()
    if got.size != want.size:
        got = golden.thinned(got, manifest().get("largest_output"))
    error = np.abs(got.reshape(want.shape) - want).max()
    assert error <= rtol * np.abs(want).max() + atol, f"off by {error:.3g}, reference {np.abs(want).max():.6g}"
