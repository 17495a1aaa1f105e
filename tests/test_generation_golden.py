"""Generation: players and losses against KD-DLGAN's released code (tests/vectors/generation)."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import VECTORS, thinned
from models_golden import uniform
from torch import Tensor, nn

from distillery.tasks.generation.biggan import Discriminator, Generator, Shown
from distillery.tasks.generation.losses import aggregated, correlated, hinge, lecam
from distillery.tasks.generation.objectives.kd_dlgan import Head


@cache
def folder() -> Path:
    named = os.environ.get("DISTILLERY_GOLDEN")
    places = [Path(named) / part for part in ("vision/generation", "generation")] if named else []
    return next((place for place in places if (place / "manifest.json").is_file()), VECTORS / "generation")


@cache
def manifest() -> dict[str, Any]:
    return json.loads((folder() / "manifest.json").read_text())


def cases(method: str) -> list[dict[str, Any]]:
    return [case for case in manifest()["cases"] if case["method"] == method]


def check(case: dict[str, Any], name: str, value: Tensor | float, rtol: float = 1e-10) -> None:
    """In the max-norm, as the other float64 vectors are compared."""
    with np.load(folder() / "generation.npz", allow_pickle=False) as archive:
        if name in case["scalars"]:
            want = torch.from_numpy(archive[f"{case['id']}__scalars"])[case["scalars"].index(name)]
        else:
            want = torch.from_numpy(archive[f"{case['id']}__{name}"])
    got = torch.as_tensor(value, dtype=torch.float64).detach()
    got = thinned(got, manifest().get("largest_output")) if got.shape != want.shape else got
    assert got.isfinite().all() and got.shape == want.shape, name
    assert (got - want).abs().max() <= rtol * want.abs().max() + 1e-12, name


def drawn(rule: str) -> Tensor:
    """An input by its rule: "uniform((8,1), k=400, -2, 3)"."""
    found = re.search(r"uniform\(\(([\d, ]+)\), k=(\d+), (-?[\d.]+), (-?[\d.]+)\)", rule)
    assert found, rule
    shape = tuple(int(n) for n in found[1].split(",") if n.strip())
    low, high = float(found[3]), float(found[4])
    return torch.from_numpy(low + (high - low) * uniform(int(np.prod(shape)), int(found[2]))).view(shape)


def weight(entry: dict[str, Any], k: int) -> Tensor:
    shape, size = entry["shape"], int(np.prod(entry["shape"]))
    slow, fast, u = 0.3 * k + 0.017 * np.arange(size), 0.7 * k + 0.013 * np.arange(size), uniform(size, k)
    match entry["kind"]:
        case "weight":
            flat = np.sqrt(6 / np.prod(shape[1:])) * (2 * u - 1)
        case "bias":
            flat = 0.1 * (2 * u - 1)
        case "token":
            flat = 0.5 * (2 * u - 1)
        case "norm_weight":
            flat = 1 + 0.1 * np.cos(fast)
        case "running_mean":
            flat = 0.1 * np.sin(slow)
        case "running_var":
            flat = 1 + 0.2 * np.cos(slow) ** 2
    return torch.from_numpy(flat.reshape(shape))


def filled(case: dict[str, Any], name: str, *modules: nn.Module) -> None:
    """Give modules their entries of one released state dict; every entry belongs to one of them."""
    entries = {e["key"]: weight(e, k) for k, e in enumerate(case["networks"][name]["state_dict"])}
    for module in modules:
        module.double().eval().load_state_dict({key: entries.pop(key) for key in module.state_dict()})
    assert not entries
    count = sum(p.numel() for module in modules for p in module.parameters())
    assert count == case["networks"][name]["parameters"]


@pytest.mark.parametrize("case", cases("biggan"), ids=lambda case: case["id"])
def test_the_players_are_the_released_ones(case: dict[str, Any]) -> None:
    hyper = case["hyper"]
    generator = Generator(hyper["n_classes"], 3, hyper["resolution"], hyper["G_ch"], hyper["dim_z"])
    discriminator = Discriminator(hyper["n_classes"], 3, hyper["D_ch"])
    head = Head(4 * hyper["D_ch"], 512)
    filled(case, "generator", generator)
    filled(case, "discriminator", discriminator, head)
    labels = torch.tensor(case["inputs"]["y"])
    images = generator(drawn(case["inputs"]["z"]), labels)
    outputs = discriminator(Shown(images, labels))
    embedded = head(outputs.pooled)
    probe = embedded.square().mean() - outputs.logits.mean()
    probe.backward()
    stats = (images.mean(), images.std(correction=0), images.min(), images.max(), images.abs().sum())
    check(case, "image_stats", torch.stack(stats))
    check(case, "image_first8", images.flatten()[:8])
    check(case, "image_corner", images[:, :, :4, :4])
    check(case, "discriminator", outputs.logits)
    check(case, "head", embedded)
    check(case, "probe", probe)
    parameters = dict(generator.named_parameters())
    theirs = {**dict(discriminator.named_parameters()), **dict(head.named_parameters())}
    order = case["parameter_order"]
    assert {*parameters} == {*order["generator"]} and {*theirs} == {*order["discriminator"]}
    check(case, "grad_l2_generator", torch.stack([parameters[n].grad.norm() for n in order["generator"]]))
    check(case, "grad_l2_discriminator", torch.stack([theirs[n].grad.norm() for n in order["discriminator"]]))


@pytest.mark.parametrize("case", cases("gan_losses"), ids=lambda case: case["id"])
def test_hinge_and_lecam_are_the_released_ones(case: dict[str, Any]) -> None:
    real, fake = (drawn(case["inputs"][name]).requires_grad_() for name in ("real", "fake"))
    means = case["inputs"]["ema"]
    losses = hinge(real, fake)
    term = lecam(real, fake, *(torch.tensor(means[m], dtype=torch.float64) for m in ("D_real", "D_fake")))
    (sum(losses) + case["hyper"]["lecam"] * term).backward()
    for name, value in zip(("hinge_real", "hinge_fake"), losses, strict=True):
        check(case, name, value)
    check(case, "lecam", term)
    check(case, "grad_real", real.grad)
    check(case, "grad_fake", fake.grad)
    check(case, "generator", -fake.mean())


@pytest.mark.parametrize("case", cases("kd_dlgan"), ids=lambda case: case["id"])
def test_the_terms_of_kd_dlgan_are_the_released_ones(case: dict[str, Any]) -> None:
    shape = drawn(case["inputs"]["clip_image"]).shape
    own, other = (
        drawn(f"uniform({tuple(shape)}, {case['inputs'][name]}, -1, 1)").requires_grad_()
        for name in ("head_own", "head_other")
    )
    teacher, texts = drawn(case["inputs"]["clip_image"]), drawn(case["inputs"]["clip_text"])
    first, second = aggregated(teacher, own, other), correlated(own, teacher, texts)
    weights = case["hyper"]["weights"]
    (weights[0] * first + weights[1] * second).backward()
    check(case, "aggregated", first)
    check(case, "correlated", second)
    check(case, "grad_head_own", own.grad)
    check(case, "grad_head_other", other.grad)
