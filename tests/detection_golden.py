"""Golden vectors of detectors (tests/vectors/vision/detection), and the rules that make their weights and inputs."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import golden
import numpy as np
import torch
from torch import Tensor
from vision_golden import images, values

from distillery.tasks.detection.detections import COLUMNS, Pictures
from distillery.tasks.detection.networks.vidt import ViDT

Case = dict[str, Any]
SWIN = {
    "nano": {"width": 48},
    "tiny": {"width": 96},
    "small": {"width": 96, "depths": (2, 2, 18, 2)},
    "base": {"width": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32)},
}


def folder() -> Path:
    found = golden.folder("vision") / "detection"
    return found if found.is_dir() else golden.VECTORS / "vision" / "detection"


@cache
def manifest() -> dict[str, Any]:
    return json.loads((folder() / "manifest.json").read_text())


@cache
def archive() -> dict[str, np.ndarray]:
    with np.load(folder() / "detection.npz", allow_pickle=False) as file:
        return dict(file)


def cases(method: str) -> list[Case]:
    return [case for case in manifest()["cases"] if case["method"] == method]


def outputs(case: Case) -> dict[str, np.ndarray]:
    found = archive()
    scalars = zip(case["scalars"], found[f"{case['id']}__scalars"], strict=True)
    return {n: np.asarray(v) for n, v in scalars} | {n: found[f"{case['id']}__{n}"] for n in case["arrays"]}


def entries(name: str) -> list[tuple[str, str]]:
    """Official keys and kinds, in the official order."""
    order = manifest()["networks"][name]["state_dict"]
    return [(e["key"], e["kind"]) if isinstance(e, dict) else tuple(e) for e in order]


def options(name: str) -> dict[str, Any]:
    """What a network of the manifest is built with."""
    config = manifest()["networks"][name]["config"]
    keys = {
        **{"num_classes": "classes", "tokens": "det_tokens", "layers": "decoder_layers", "inner": "width"},
        **{"decoder_heads": "heads", "hidden": "feedforward", "points": "points", "dropout": "dropout"},
    }
    found = {ours: config[theirs] for ours, theirs in keys.items()} | {"drop_path": config["drop_path"]}
    return found | SWIN[name.removeprefix("vidt_swin_")]


def network(name: str) -> ViDT:
    """ViDT with golden weights, in evaluation mode."""
    made = ViDT(**options(name)).eval()
    own = made.state_dict()
    filled = {
        key: own[key] if kind == "kept" else values(kind, tuple(own[key].shape), k).to(own[key].dtype)
        for k, (key, kind) in enumerate(entries(name))
    }
    made.load_state_dict(filled)
    return made


RULE = re.compile(r"rule images\(\(([\d,]+)\), k=(\d+)\); image 1 is valid on rows < (\d+), columns < (\d+)")


def pictures(case: Case) -> Pictures:
    """Two images, the second of which is padded below and to the right."""
    found = RULE.match(case["inputs"]["images"])
    assert found, case["inputs"]["images"]
    shape, k, rows, columns = tuple(map(int, found[1].split(","))), int(found[2]), int(found[3]), int(found[4])
    made, padding = images(shape, k).float(), torch.zeros(shape[0], *shape[2:], dtype=torch.bool)
    padding[1, rows:] = True
    padding[1, :, columns:] = True
    return Pictures(made.masked_fill(padding[:, None], 0.0), padding)


def targets(case: Case) -> Tensor:
    """(2, M, 9)."""
    given = case["inputs"]["targets"]
    made = torch.full((len(given), max(len(t["labels"]) for t in given), COLUMNS), -1.0)
    for i, t in enumerate(given):
        made[i, : len(t["labels"]), 0] = torch.tensor(t["labels"]).float()
        made[i, : len(t["labels"]), 1:5] = torch.tensor(t["boxes_values"])
    return made
