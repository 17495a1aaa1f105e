"""Choose the golden vectors of the repository (tests/vectors) from the full set: `select_vectors.py FULL_SET`.

The full set is 15 MB; here every network and every training procedure stays, and of the 1,668 loss cases those that
show something new. Everything that can be rebuilt by rule (weights and images of the networks) is in neither set. The
inputs of the losses are random draws of an unknown generator and have to be stored, hence as few as will do.

The choice is a greedy cover: for each method, the case that shows most new things for its bytes, until nothing new is
left (`shows` says what counts). Of a large output array every n-th element is kept, spread over rows and columns
(`golden.thinned`). The same full set always gives the same files.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from golden import thinned

Case = dict[str, Any]
VECTORS = Path(__file__).parent / "vectors"
LARGEST = 64  # elements of an output array
CASE_FACTS = ("id", "method", "dtype", "input_class", "hyper", "effective_T", "effective_momentum", "inputs", "scalars")
CASE_FACTS += ("arrays", "conditioning_warning", "float32_rel_err")
METHOD_FACTS = ("npz", "source")
NETWORK_FACTS = ("name", "registry_name", "source", "parameters", "macs", "taps", "state_dict", "outputs")
VISION_FACTS = ("name", "num_classes", "input_shape", "parameters", "trainable_parameters", "macs", "source", "forms")
VISION_FACTS += ("state_dict",)
LS_STEPS = ("ls_vit_t2_w10_f64", "ls_vit_plain_t2_f32")
WHOLE = 200  # elements of an output of the vision set that is kept whole


@cache
def archive(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def write_json(path: Path, value: Any, lines: str = "") -> None:
    """Without blanks; of the dictionary's entry `lines`, a list, every item has its own line (for readable diffs)."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def packed(part: Any) -> str:
        return json.dumps(part, separators=(",", ":"))

    if not lines:
        path.write_text(packed(value) + "\n")
        return
    head = packed({k: v for k, v in value.items() if k != lines})[:-1]
    path.write_text(f"{head},\n{packed(lines)}:[\n" + ",\n".join(map(packed, value[lines])) + "\n]}\n")


def outputs(case: Case, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The stored outputs of a case by their names in the archive."""
    names = [f"{case['id']}__{name}" for name in case["arrays"]]
    kept = {f"{case['id']}__scalars": arrays[f"{case['id']}__scalars"]} if case["scalars"] else {}
    return kept | {name: thinned(arrays[name], LARGEST) for name in names}


def shows(case: Case) -> set[tuple]:
    """What a case has to show for its method."""
    dtype = case["dtype"]
    found = {("setting", json.dumps(case["hyper"], sort_keys=True), dtype), ("input class", case["input_class"], dtype)}
    found |= {("classes", case.get("C")), ("a single row", case.get("B") == 1)}
    found |= {("output", name) for name in (*case["scalars"], *case["arrays"])}
    found |= {(remark, str(case.get(remark)), dtype) for remark in ("conditioning_warning", "notes")}
    exceptions = ("nan_outputs", "inf_outputs", "float32_rel_err", "official_scalar_shape", "official_dtype_differs")
    return found | {(kind, dtype) for kind in exceptions if case.get(kind)}


def choose(cases: list[Case], inputs: dict[str, np.ndarray], stored: set) -> list[Case]:
    """A cover of everything that the cases of a method show; `stored`: the inputs chosen so far, brought up to date."""
    shown = {case["id"]: shows(case) for case in cases}
    wanted, chosen = set().union(*shown.values()), []

    def worth(case: Case) -> float:
        new_inputs = sum(inputs[a].nbytes for a in set(case["inputs"].values()) - stored)
        return len(shown[case["id"]] & wanted) / (new_inputs + 5000)  # outputs and manifest are about 5 kB

    while wanted:
        best = max(cases, key=worth)
        wanted -= shown[best["id"]]
        stored |= set(best["inputs"].values())
        chosen.append(best["id"])
    return [case for case in cases if case["id"] in chosen]


def losses(full: Path, to: Path) -> None:
    manifest = json.loads((full / "manifest.json").read_text())
    inputs = {
        f"{path.name}:{name}": value for path in full.glob("inputs_*.npz") for name, value in archive(path).items()
    }
    stored: set[str] = set()
    kept: list[Case] = []
    to.mkdir(parents=True, exist_ok=True)
    for method, facts in manifest["methods"].items():
        arrays = archive(full / facts["npz"])
        chosen = choose([c for c in manifest["cases"] if c["method"] == method], inputs, stored)
        kept_arrays = [outputs(case, arrays) for case in chosen]
        np.savez_compressed(to / facts["npz"], **{k: v for one in kept_arrays for k, v in one.items()})
        kept += [{name: case[name] for name in CASE_FACTS if name in case} for case in chosen]
        counts = {"cases": len(chosen), "cases_in_full_set": facts["cases"]}
        manifest["methods"][method] = {name: facts[name] for name in METHOD_FACTS if name in facts} | counts
    for file in sorted({address.split(":")[0] for address in stored}):
        names = [address.split(":")[1] for address in inputs if address in stored and address.startswith(f"{file}:")]
        np.savez_compressed(to / file, **{name: inputs[f"{file}:{name}"] for name in names})
    manifest |= {"largest_output": LARGEST, "n_cases": len(kept), "cases": kept}
    write_json(to / "manifest.json", manifest, lines="cases")


def architectures(full: Path, to: Path) -> None:
    """All networks, without what no test reads: the taps of related code bases, descriptions of the arrays."""
    for path in sorted(full.glob("*.json")):
        facts = json.loads(path.read_text())
        if path.stem == "index":
            write_json(to / path.name, facts)
            continue
        facts = {key: facts[key] for key in NETWORK_FACTS if key in facts}
        facts["taps"] = {"mdistiller": facts["taps"]["mdistiller"]}
        write_json(to / path.name, facts, lines="state_dict")
    for path in sorted(full.glob("*.npz")):
        np.savez_compressed(to / path.name, **archive(path))


def training_steps(full: Path, to: Path) -> None:
    write_json(to / "manifest.json", json.loads((full / "manifest.json").read_text()), lines="cases")
    np.savez_compressed(to / "training_step.npz", **archive(full / "training_step.npz"))


def vision(full: Path, to: Path) -> None:
    """Networks and objectives for ImageNet and vision transformers: all networks, some cases of each procedure."""
    index = json.loads((full / "architectures" / "index.json").read_text())
    write_json(to / "architectures" / "index.json", {name: index[name]["parameters"] for name in index})
    for name in index:
        facts = json.loads((full / "architectures" / f"{name}.json").read_text())
        facts = {key: facts[key] for key in VISION_FACTS}
        facts["state_dict"] = [{key: entry[key] for key in ("key", "shape", "kind")} for entry in facts["state_dict"]]
        write_json(to / "architectures" / f"{name}.json", facts, lines="state_dict")
        if (path := full / "architectures" / f"{name}.npz").is_file():
            np.savez_compressed(to / "architectures" / path.name, **thin(archive(path)))
    cases = json.loads((full / "objectives" / "manifest.json").read_text())["cases"]
    cases = [case for case in cases if case["method"] != "vkd_deit" or "3024" not in case["id"]]  # minutes on a CPU
    cases = [case for case in cases if case["method"] != "ls_vit" or case["id"] in LS_STEPS]
    for case in cases:
        case.pop("parameter_order", None)
    for file in sorted({case["npz"] for case in cases}):
        arrays = archive(full / "objectives" / file)
        ids = {case["id"] for case in cases}
        kept = {key: value for key, value in arrays.items() if key.partition("__")[0] in ids}
        (to / "objectives").mkdir(parents=True, exist_ok=True)
        np.savez_compressed(to / "objectives" / file, **thin(kept))
    write_json(to / "objectives" / "manifest.json", {"largest_output": LARGEST, "cases": cases}, lines="cases")


def thin(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every n-th element of what is large; statistics and one number per weight stay whole."""
    return {name: thinned(value, LARGEST) if value.size > WHOLE else value for name, value in arrays.items()}


if __name__ == "__main__":
    source = Path(sys.argv[1])
    losses(source / "losses", VECTORS / "losses")
    architectures(source / "architectures", VECTORS / "architectures")
    training_steps(source / "training_step", VECTORS / "training_step")
    if (source / "vision").is_dir():
        vision(source / "vision", VECTORS / "vision")
