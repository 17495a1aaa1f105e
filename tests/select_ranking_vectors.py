"""Choose the golden vectors of ranking (tests/vectors/ranking) from the full set: `select_ranking_vectors.py FULL_SET`.

FULL_SET holds `manifest.json`, `inputs.npz` and `unkd.npz` of 28 cases, 1.2 MB. Here stay those of four of its six data
sets, which between them have every setting of another kind (groups, unequal shares, layers, large and zero
embeddings), and the float32 cases of one ordinary and of the large one. Of an output array of real numbers every n-th
element is kept (`golden.thinned`); whole numbers stay whole. The same full set always gives the same files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from golden import thinned
from select_vectors import VECTORS, archive, write_json

LARGEST = 64
DATA = ("d2", "d3", "d4_large", "d5_zero")
SINGLE = ("d2", "d4_large")  # also in float32
FACTS = ("id", "method", "dtype", "input_class", "hyper", "inputs", "scalars", "arrays", "conditioning_warning")
FACTS += ("inf_outputs", "nan_outputs", "float32_rel_err")


def chosen(case: dict) -> bool:
    data = case["input_class"]
    return data in DATA and (case["dtype"] == "float64" or data in SINGLE)


def main(full: Path, to: Path) -> None:
    manifest = json.loads((full / "manifest.json").read_text())
    inputs, outputs = archive(full / "inputs.npz"), archive(full / "unkd.npz")
    cases = [{k: case[k] for k in FACTS if k in case} for case in manifest["cases"] if chosen(case)]
    kept = {}
    for case in cases:
        if case["scalars"]:
            kept[f"{case['id']}__scalars"] = outputs[f"{case['id']}__scalars"]
        for name in case["arrays"]:
            value = outputs[f"{case['id']}__{name}"]
            kept[f"{case['id']}__{name}"] = thinned(value, LARGEST) if value.dtype.kind == "f" else value
    names = sorted({address.split(":")[1] for case in cases for address in case["inputs"].values()})
    to.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(to / "unkd.npz", **kept)
    np.savez_compressed(to / "inputs.npz", **{name: inputs[name] for name in names})
    manifest |= {"largest_output": LARGEST, "n_cases": len(cases), "cases": cases}
    write_json(to / "manifest.json", manifest, lines="cases")


if __name__ == "__main__":
    main(Path(sys.argv[1]), VECTORS / "ranking")
