"""IKD, FGD and MGD against outputs of the released code."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vision_golden import agrees

from distillery.tasks.detection import Attack
from distillery.tasks.detection.attack import difgsm
from distillery.tasks.detection.augment import SizeGated, of_small, part_of
from distillery.tasks.detection.gating import gate
from distillery.tasks.detection.objectives.ikd import twin_gap
from distillery.tasks.detection.objectives.maps import FGDTerm, FGDWeights, MGDTerm, MGDWeights, attention
from distillery.tasks.detection.views import Gate, View, corners_in

Case = dict[str, Any]


@cache
def folder() -> Path:
    """The repository's vectors, or those of DISTILLERY_GOLDEN: `related/ikd` or `ikd` in it, if there is one."""
    named = os.environ.get("DISTILLERY_GOLDEN")
    places = [Path(named) / part for part in ("related/ikd", "ikd")] if named else []
    return next((place for place in places if (place / "manifest.json").is_file()), golden.VECTORS / "ikd")


@cache
def manifest() -> dict[str, Any]:
    return json.loads((folder() / "manifest.json").read_text())


@cache
def archive(name: str) -> dict[str, np.ndarray]:
    with np.load(folder() / name, allow_pickle=False) as file:
        return dict(file)


def cases(method: str) -> list[Any]:
    return [pytest.param(c, id=c["id"]) for c in manifest()["cases"] if c["method"] == method]


def inputs(case: Case) -> dict[str, Tensor]:
    dtype = getattr(torch, case["dtype"])
    given = {
        k: torch.from_numpy(np.array(archive("inputs.npz")[v.rpartition(":")[2]])) for k, v in case["inputs"].items()
    }
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in given.items()}


def outputs(case: Case) -> dict[str, np.ndarray]:
    found = archive("ikd.npz")
    named = zip(case["scalars"], found[f"{case['id']}__scalars"], strict=True)
    return {n: np.asarray(v) for n, v in named} | {n: found[f"{case['id']}__{n}"] for n in case["arrays"]}


def tolerance(case: Case) -> float:
    return 1e-9 if case["dtype"] == "float64" else 2e-5


def fill(module: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(weights)
    return module.double() if next(iter(weights.values())).dtype == torch.float64 else module


def part(given: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}


def compare_gradient(student: Tensor, loss: Tensor, want: np.ndarray, case: Case, least: float = 0.0) -> None:
    loss.backward()
    if case["input_class"] != "equal":  # there it is rounding
        agrees(student.grad, want, max(10 * tolerance(case), least))


@pytest.mark.parametrize("case", cases("ikd_adv_feature"))
def test_gap_of_twins(case: Case) -> None:
    given, want, hyper = inputs(case), outputs(case), case["hyper"]
    student = given["student"].requires_grad_()
    seen = F.conv2d(student, given["align_weight"], given["align_bias"]) if "align_weight" in given else student
    loss = hyper["alpha"] * twin_gap(seen, given["teacher"], hyper["loss_type"], hyper.get("tau", 1.0))
    if case["input_class"] == "equal" and "align_weight" not in given:
        assert abs(loss.item()) < 1e-12 and abs(want["loss"]) < 1e-12
    else:
        agrees(loss.detach(), want["loss"], tolerance(case))
    compare_gradient(student, loss, want["grad_student"], case)


@pytest.mark.parametrize("case", cases("ikd_host_fgd"))
def test_fgd(case: Case) -> None:
    given, want, h = inputs(case), outputs(case), case["hyper"]
    weights = FGDWeights(
        temperature=h["temp"], objects=h["alpha"], background=h["beta"], attentions=h["gamma"], relation=h["lambda_"]
    )
    student, teacher = given["student"].requires_grad_(), given["teacher"]
    term = FGDTerm(student.shape[1], teacher.shape[1], weights)
    filled = {f"align.{k}": v for k, v in part(given, "align.").items()}
    for ours, theirs in (("of_student", "s"), ("of_teacher", "t")):
        filled |= {f"{ours}.mask.{k}": v for k, v in part(given, f"conv_mask_{theirs}.").items()}
        filled |= {f"{ours}.add.{k}": v for k, v in part(given, f"channel_add_conv_{theirs}.").items()}
    fill(term, filled)
    rows = given["boxes"].double()
    unit = torch.tensor([h["img_w"], h["img_h"]], dtype=torch.float64).repeat(2)
    boxes = [rows[rows[:, 0] == i, 1:] / unit for i in range(len(student))]
    loss = term(student, teacher, boxes)
    agrees(loss.detach(), want["loss"], max(tolerance(case), 5e-8))  # released areas are float32 in any precision
    of_teacher = attention(teacher, h["temp"])
    agrees(of_teacher.places, want["spatial_attention_teacher"], tolerance(case))
    agrees(of_teacher.channels, want["channel_attention_teacher"], tolerance(case))
    compare_gradient(student, loss, want["grad_student"], case, 5e-7)


@pytest.mark.parametrize("case", cases("ikd_host_mgd"))
def test_mgd(case: Case) -> None:
    given, want, h = inputs(case), outputs(case), case["hyper"]
    student, teacher = given["student"].requires_grad_(), given["teacher"]
    term = MGDTerm(student.shape[1], teacher.shape[1], MGDWeights(weight=h["alpha"], masked=h["lambda_"]))
    names = {f"generate.{k}": v for k, v in part(given, "generation.").items()}
    fill(term, names | {f"align.{k}": v for k, v in part(given, "align.").items()})
    loss = term(student, teacher, given["uniform"])
    agrees(loss.detach(), want["loss"], tolerance(case))
    compare_gradient(student, loss, want["grad_student"], case)


@pytest.mark.parametrize("case", cases("ikd_difgsm"))
def test_adversarial_images(case: Case) -> None:
    given, want, h = inputs(case), outputs(case), case["hyper"]
    attack = Attack(
        eps=h["eps"],
        alpha=h["alpha"],
        steps=h["steps"],
        momentum=h["decay"],
        resize=h["resize_rate"],
        diversity=h["diversity_prob"],
    )
    drawn = iter(given["draws_size_top_left"].tolist())

    def loss(image: Tensor) -> Tensor:
        scores = F.conv2d(F.conv2d(image, given["w1"], stride=2, padding=1).tanh(), given["w2"]).mean((2, 3))
        return F.cross_entropy(scores, given["label"])

    twin = difgsm(given["image"], loss, attack, lambda _: tuple(next(drawn)) if h["diversity_prob"] else None)
    agrees(twin, want["adversarial"], 1e-9)
    change = (twin - given["image"]).abs().amax()
    assert 0 < change <= want["eps_absolute"] + 1e-12


@pytest.mark.parametrize("case", cases("ikd_augment"))
def test_augmentation_is_gated_by_size(case: Case) -> None:
    given, want, h = inputs(case), outputs(case), case["hyper"]
    boxes, size = given["boxes"], (h["height"], h["width"]) if "height" in h else given["image"].shape[:2]
    small_if = {"1": "any", "2": "all"}[h["subst_stg"]]
    noisy = of_small(boxes, h["small"], True, small_if) and h["u"] < h["prob"]
    assert noisy == (want["noise_outcome"] == 1)
    cropped = not of_small(boxes, h["small"], False, small_if)
    assert cropped == (want["cropped"][0] == 1)
    if cropped:
        *shares, top, left = given["draws"].tolist()
        part = part_of(size, h["crop"], tuple(shares))
        assert list(part) == want["crop_shape"].tolist()
        view = View(False, None, None, size, Gate(None, 0.08, (int(top), int(left), *part)))
        kept, at = corners_in(view, size, boxes)
        assert kept.nonzero()[:, 0].tolist() == want["crop_labels"].tolist()
        agrees(at[kept], want["crop_boxes"], 1e-5)


@pytest.mark.parametrize(
    "view",
    [
        View(False, None, None, (800, 1066)),
        View(True, (400, 533), (0, 100, 384, 384), (800, 800)),  # a part of it
    ],
)
def test_an_area_as_seen_is_that_in_the_view(view: View) -> None:
    size, boxes = (480, 640), torch.tensor([[200.0, 50.0, 225.0, 75.0]])
    [[left, top, right, bottom]] = corners_in(view, size, boxes)[1].tolist()
    area = (right - left) * (bottom - top)
    for small, noisy in ((1.01 * area, True), (0.99 * area, False)):
        found = gate(view, SizeGated.Config(measured="seen", prob=1.0, small=small), boxes, size, 1).gate
        assert found is not None and (found.noise is not None) == noisy
