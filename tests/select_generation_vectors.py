"""Choose the golden vectors of generation (tests/vectors/generation): `select_generation_vectors.py FULL_SET`.

FULL_SET holds `manifest.json` and `generation.npz` of three cases, 100 kB. All cases stay; of a large output every n-th
element (`golden.thinned`), of the state dicts what the rules for weights ask for. The same set gives the same files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from golden import thinned
from select_vectors import VECTORS, archive, write_json

LARGEST = 200
FACTS = ("id", "method", "dtype", "inputs", "hyper", "source", "notes", "scalars", "parameter_order", "networks")


def main(full: Path, to: Path) -> None:
    manifest, outputs = json.loads((full / "manifest.json").read_text()), archive(full / "generation.npz")
    cases = []
    for case in manifest["cases"]:
        kept = {key: case[key] for key in FACTS if key in case} | {"arrays": list(case["arrays"])}
        for network in kept.get("networks", {}).values():
            network["state_dict"] = [{k: e[k] for k in ("key", "shape", "kind")} for e in network["state_dict"]]
        cases.append(kept)
    to.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(to / "generation.npz", **{name: thinned(value, LARGEST) for name, value in outputs.items()})
    write_json(to / "manifest.json", manifest | {"largest_output": LARGEST, "cases": cases}, lines="cases")


if __name__ == "__main__":
    main(Path(sys.argv[1]), VECTORS / "generation")
