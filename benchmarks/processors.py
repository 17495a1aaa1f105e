"""Has a study the same bits on another processor? A short one, here and on processors that QEMU emulates.

    python benchmarks/processors.py [--processors Haswell,EPYC-Rome] [--instructions avx2] [--methods ce,kd]

QEMU's user mode (`apt install qemu-user`, 7.2 or newer) takes the name, the caches and the instructions of another
processor (`qemu-x86_64 -cpu help`), by which libraries choose their kernels, and computes as it would, some hundred
times slower; it knows no AVX-512. One epoch of the digits study, one seed, for both values of `instructions`: data,
teacher, view table, students and their answers, tensor by tensor.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import NDArray
from safetensors.numpy import load_file
from side_by_side import parser, show

from distillery.pipeline.job import Plan

QEMU = "qemu-x86_64"
# All jobs in one process: an emulated process takes most of a minute to load torch.
JOBS = """
import sys
from pathlib import Path
from distillery.cli.stages import run
for spec in sys.argv[1:]:
    run(Path(spec))
"""


def short(params: dict[str, Any], instructions: str, methods: list[str]) -> dict[str, Any]:
    """The study on a smaller scale."""
    params["instructions"], params["seeds"] = instructions, [0]
    for recipe in (params["recipe"], *(teacher["recipe"] for teacher in params["teachers"].values())):
        recipe |= {"epochs": 1, "milestones": []}
    params["methods"] = {name: params["methods"][name] for name in methods}
    for method in params["methods"].values():
        method.pop("warmup_epochs", None)
    return params


def planned(folder: Path, instructions: str, methods: list[str]) -> list[str]:
    """Put the study into a folder and plan it; return the paths of its specs, each after those that it needs."""
    subprocess.run(["distillery", "init", str(folder), "--study", "digits"], check=True, stdout=subprocess.DEVNULL)
    params = short(yaml.safe_load((folder / "params.yaml").read_text()), instructions, methods)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    subprocess.run(["distillery", "plan"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with chdir(folder):
        return [str(job.path) for job in Plan.read("digits") if job.stage != "tables"]


def trained(folder: Path, specs: list[str], *emulator: str) -> dict[str, NDArray[Any]]:
    """Run the jobs that are planned in a folder; return all tensors that they made, by file and name."""
    run = [*emulator, sys.executable, "-c", JOBS, *specs]
    subprocess.run(run, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    files = sorted((folder / "artifacts").rglob("*.safetensors"))
    return {f"{file.relative_to(folder)} {name}": x for file in files for name, x in load_file(file).items()}


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--processors", default="Haswell,EPYC-Rome", help="names of QEMU's; default Haswell,EPYC-Rome")
    options.add_argument("--instructions", default="avx2,native", help="default avx2,native")
    options.add_argument("--methods", default="ce,kd", help="of the digits study; default ce,kd")
    given = options.parse_args(argv)
    if not shutil.which(QEMU):
        options.error(f"{QEMU} is not installed: `apt install qemu-user`")
    rows = []
    for instructions in given.instructions.split(","):
        with tempfile.TemporaryDirectory() as place:
            specs = planned(Path(place, "here"), instructions, given.methods.split(","))
            processors = given.processors.split(",")
            for name in processors:
                shutil.copytree(Path(place, "here"), Path(place, name))
            here = trained(Path(place, "here"), specs)
            for name in processors:
                there = trained(Path(place, name), specs, QEMU, "-cpu", name)
                same = sum(x.tobytes() == there[key].tobytes() for key, x in here.items())
                rows.append([instructions, name, f"{same} of {len(here)}"])
    note = "Tensors of data, teacher, view table, students and their answers: one epoch of the digits study, one seed."
    heads = ["instructions", "processor, emulated", "tensors with the bits of this processor"]
    show("processors: the same bits elsewhere", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
