"""Every feature objective with its options, on networks whose weights, images and outputs are always the same."""

from __future__ import annotations

import copy
import functools
from typing import Any

import feature_batches as fb
import torch

from distillery import models
from distillery.models.base import Network, Outputs
from distillery.objectives.adain import AdaIN
from distillery.objectives.at import AT
from distillery.objectives.base import Objective
from distillery.objectives.cc import CC
from distillery.objectives.crd import CRD
from distillery.objectives.fitnet import FitNet
from distillery.objectives.itrd import ITRD
from distillery.objectives.kdsvd import KDSVD
from distillery.objectives.nst import NST
from distillery.objectives.ofd import OFD
from distillery.objectives.pkt import PKT
from distillery.objectives.reviewkd import ReviewKD
from distillery.objectives.rkd import RKD
from distillery.objectives.simkd import SimKD
from distillery.objectives.sp import SP
from distillery.objectives.staged import Staged
from distillery.objectives.vid import VID
from distillery.objectives.vkd import VkD

CASES: dict[str, tuple[type[Objective], dict[str, Any]]] = {
    "vkd": (VkD, {}),
    "vkd_standardise": (VkD, {"normalise": "standardise", "orthogonal_map": "householder"}),
    "vkd_whiten": (VkD, {"normalise": "whiten", "orthogonal_map": "cayley"}),
    "crd": (CRD, {"nce_k": 16}),
    "crd_relax": (CRD, {"nce_k": 16, "mode": "relax", "temperature": 0.01}),
    "itrd": (ITRD, {}),
    "fitnet": (FitNet, {}),
    "at": (AT, {}),
    "at_4": (AT, {"p": 4}),
    "rkd": (RKD, {}),
    "pkt": (PKT, {}),
    "sp": (SP, {}),
    "staged": (Staged, {}),
    "vid": (VID, {"train_variance": True, "init_variance": 100.0}),
    "nst": (NST, {}),
    "kdsvd": (KDSVD, {}),
    "cc": (CC, {}),
    "cc_normalised": (CC, {"normalise": True}),
    "reviewkd": (ReviewKD, {}),
    "reviewkd_preacts": (ReviewKD, {"student_taps": "preacts"}),
    "ofd": (OFD, {}),
    "simkd": (SimKD, {}),
    "adain": (AdaIN, {"l2_weight": 1.0, "srrl_weight": 1.0}),
    "adain_default": (AdaIN, {}),
    "srrl": (AdaIN, {"adain_weight": 0.0, "srrl_weight": 1.0}),
    "adain_middle": (AdaIN, {"stages": (1,)}),
}


@functools.cache
def network(name: str) -> Network:
    torch.manual_seed(0)
    return models.build(name, num_classes=10)


@functools.cache
def run(name: str, size: int, count: int) -> Outputs:
    """Outputs of a network in evaluation mode on random images, with pre-activation taps."""
    torch.manual_seed(1)
    images = torch.randn(count, 3, size, size)
    with torch.no_grad():
        return network(name).eval()(images, preacts=True)


def over(outputs: Outputs, change: object) -> Outputs:
    """The outputs with every feature changed by a function."""
    assert callable(change)
    return Outputs(
        change(outputs.logits),
        change(outputs.pooled),
        tuple(map(change, outputs.maps)),
        tuple(map(change, outputs.preacts)),
    )


def make(case: str, teacher: str, student: str, size: int = 8) -> Objective:
    kind, hyper = CASES[case]
    torch.manual_seed(2)
    frozen = copy.deepcopy(network(teacher)).requires_grad_(False).eval()
    ctx = fb.context(run(student, size, 4), run(teacher, size, 4), teacher_model=frozen)
    made: Objective = kind(ctx, kind.Config(**hyper))
    return made
