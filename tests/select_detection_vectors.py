"""Choose the golden vectors of detectors, of the full set: `select_detection_vectors.py FULL`.

FULL has `vision/detection` and `related/ikd`. Of ViDT all stays but what can be rebuilt: shapes and types of weights.
Of IKD's 208 cases stay those of the first random seed, in float64, and of each method one in float32; of the
augmentation's images only the size, since what is stored of them is a sum.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

VECTORS = Path(__file__).parent / "vectors"
FACTS = ("id", "method", "dtype", "input_class", "hyper", "inputs", "scalars", "arrays", "conditioning_warning")
MADE = {"image", "noisy"}  # inputs of the augmentation that are left out


def write(folder: Path, manifest: dict[str, Any], **archives: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")
    for name, arrays in archives.items():
        np.savez_compressed(folder / f"{name}.npz", **arrays)


def vidt(full: Path) -> None:
    folder = full / "vision" / "detection"
    found = json.loads((folder / "manifest.json").read_text())
    networks = {}
    for name, facts in found["networks"].items():
        if facts["outputs"] == "detection.npz":
            kept = {k: v for k, v in facts.items() if k not in ("state_dict", "outputs")}
            networks[name] = kept | {"state_dict": [[e["key"], e["kind"]] for e in facts["state_dict"]]}
    for case in found["cases"]:
        if order := case.get("parameter_order"):
            keys = [key for key, _ in networks[case["id"].rpartition("_")[0]]["state_dict"]]
            case["parameter_order"] = [keys.index(key) for key in order]
    with np.load(folder / "detection.npz", allow_pickle=False) as file:
        arrays = dict(file)
    kept = {"torch_version": found["torch_version"], "cases": found["cases"], "networks": networks}
    write(VECTORS / "vision" / "detection", kept, detection=arrays)


def ikd(full: Path) -> None:
    folder = full / "related" / "ikd"
    found = json.loads((folder / "manifest.json").read_text())
    with np.load(folder / "inputs.npz", allow_pickle=False) as a, np.load(folder / "ikd.npz", allow_pickle=False) as b:
        inputs, outputs = dict(a), dict(b)
    cases, float32 = [], set()
    for case in found["cases"]:
        case = {k: case[k] for k in FACTS if k in case}
        feature = case["method"] not in ("ikd_augment", "ikd_difgsm")
        if feature and ("_s0_" not in case["id"] or (case["dtype"] == "float32" and case["method"] in float32)):
            continue
        float32 |= {case["method"]} if case["dtype"] == "float32" and feature else set()
        if case["method"] == "ikd_augment":
            shape = inputs[case["inputs"]["image"].split(":")[1]].shape[:2]
            case["hyper"] |= {"height": shape[0], "width": shape[1]}
            case["arrays"] = [n for n in case["arrays"] if n in ("cropped", "crop_shape", "crop_boxes", "crop_labels")]
        case["inputs"] = {
            k: v.split(":")[1] for k, v in case["inputs"].items() if case["method"] != "ikd_augment" or k not in MADE
        }
        cases.append(case)
    write(
        VECTORS / "ikd",
        {"torch_version": "2.15.0", "methods": found["methods"], "cases": cases},
        inputs={name: inputs[name] for case in cases for name in case["inputs"].values()},
        ikd={f"{c['id']}__{n}": outputs[f"{c['id']}__{n}"] for c in cases for n in ("scalars", *c["arrays"])},
    )


if __name__ == "__main__":
    vidt(Path(sys.argv[1]))
    ikd(Path(sys.argv[1]))
