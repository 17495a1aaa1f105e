"""Snakemake and DVC, run for real on a tiny digits study."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from workbench import Workbench

from distillery.pipeline.layout import PARAMS
from distillery.records.io import sha256_file

pytestmark = pytest.mark.slow
RESULTS = ("table.md", "table.csv", "table.tex", "summary.json", "report.html", "ledger.csv")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    bench = Workbench(tmp_path)
    bench.tiny()
    return bench


def outputs(bench: Workbench) -> dict[str, str]:
    """Hash of every declared output that is a file."""
    stages = yaml.safe_load((bench.root / "dvc.lock").read_text())["stages"]
    names = sorted(out["path"] for stage in stages.values() for out in stage.get("outs", ()))
    return {name: sha256_file(bench.root / name) for name in names if not (bench.root / name).is_dir()}


def snakemake_jobs(bench: Workbench) -> dict[str, tuple[set[str], set[str]]]:
    """Command -> (outputs, inputs) of every job, from Snakemake's own dry run."""
    plan = bench.run("snakemake", "--dry-run", "--printshellcmds", "--forceall", "--nolock", "--cores", "1").stdout
    jobs = {}
    for block in plan.split("\n\n"):
        facts = dict(line.strip().split(": ", 1) for line in block.splitlines() if ": " in line)
        if facts.get("Shell command", "None") != "None":
            command = re.sub(r"\s*> \S+ 2>&1$", "", facts["Shell command"])
            jobs[command] = (set(facts["output"].split(", ")), set(facts["input"].split(", ")))
    return jobs


def dvc_stages(bench: Workbench) -> Iterator[tuple[str, set[str], set[str], set[str]]]:
    """(command, outputs, dependencies, parameters) of every stage, from DVC's own index."""
    with Repo(str(bench.root)) as repo:
        for stage in repo.index.stages:
            plain = {d.def_path for d in stage.deps if d.def_path != "params.yaml"}
            params = {p for d in stage.deps if d.def_path == "params.yaml" for p in d.params}
            yield " ".join(stage.cmd.split()), {o.def_path for o in stage.outs}, plain, params


def test_both_engines_plan_the_same_jobs(bench: Workbench) -> None:
    """Same commands, outputs, tracked parameters; every Snakemake input is a DVC dependency or lies in one."""
    bench.tiny(methods=("ce", "kd", "kd_ls"), seeds=(0, "1-2"))
    left = snakemake_jobs(bench)
    right = {command: rest for command, *rest in dvc_stages(bench)}
    assert left.keys() == right.keys()
    assert len(left) == 5 + 2 * 3 * 2
    for command, (made, read) in left.items():
        outs, deps, params = right[command]
        assert made == outs, command
        loose = {r for r in read if not any(r == d or r.startswith(f"{d}/") for d in deps)}
        assert not loose, (command, loose)
        words = command.split()
        keys = dict(zip((w.removeprefix("--") for w in words[2::2]), words[3::2], strict=True))
        assert params == {template.format(**keys) for template in PARAMS[words[1]]}, command


def stale_for_snakemake(bench: Workbench) -> set[str]:
    """Outputs that Snakemake would make again."""
    plan = bench.run("snakemake", "--dry-run", "--cores", "1", "--nolock").stdout
    made = re.findall(r"^    output: (.+)$", plan, flags=re.MULTILINE)
    return {path for paths in made for path in paths.split(", ")}


def stale_for_dvc(bench: Workbench) -> set[str]:
    """Outputs of the stages whose parameters DVC sees changed, and of all stages after them."""
    status = json.loads(bench.run("dvc", "status", "--json").stdout)
    with Repo(str(bench.root)) as repo:
        stages = {s.name: ({d.def_path for d in s.deps}, {o.def_path for o in s.outs}) for s in repo.index.stages}
    stale: set[str] = set().union(*(stages[name][1] for name in status))
    while True:
        folders = {str(parent) for path in stale for parent in Path(path).parents}
        after = set().union(*(outs for deps, outs in stages.values() if deps & (stale | folders)))
        if after <= stale:
            return stale
        stale |= after


def test_from_nothing_to_tables_and_back(bench: Workbench) -> None:
    """Snakemake finishes a study, then finds nothing to do; DVC agrees; both invalidate the same work."""
    assert "total" in bench.run("snakemake", "-n").stdout
    bench.run("snakemake", "--cores", "2")
    for name in RESULTS:
        assert (bench.root / "results" / "digits" / name).stat().st_size
    again = bench.run("snakemake", "--cores", "2")
    assert "Nothing to be done" in again.stdout + again.stderr
    bench.run("dvc", "commit", "-f")
    assert "up to date" in bench.run("dvc", "status").stdout

    pair = next(iter(bench.params["pairs"]))
    teacher = next(iter(bench.params["teachers"]))
    leaves: list[tuple[tuple[str, ...], Any]] = [
        (("methods", "kd", "temperature"), 2.0),
        (("methods", "ce", "label"), "alone"),
        (("teachers", teacher, "recipe", "epochs"), 3),
        (("recipe", "lr"), 0.01),
        (("recipe", "augmentation", "pad"), 2),
        (("cache", "batch_size"), 512),
        (("data", "test_fraction"), 0.25),
        (("pairs", pair, "student"), "resnet8_w2"),
        (("tables", "convention"), "best"),
    ]
    before = bench.params
    for path, value in leaves:
        params = bench.params
        block = params
        for key in path[:-1]:
            block = block[key]
        assert block[path[-1]] != value
        block[path[-1]] = value
        bench.params = params
        assert stale_for_snakemake(bench) == stale_for_dvc(bench) != set(), path
        bench.params = before


def test_dvc_reproduces_bit_for_bit(bench: Workbench) -> None:
    bench.tiny(epochs=6)  # long enough for a temperature to matter
    bench.run("dvc", "repro")
    bench.git("add", "-A")
    bench.git("commit", "-qm", "results")
    assert "up to date" in bench.run("dvc", "repro").stdout
    first, lock = outputs(bench), (bench.root / "dvc.lock").read_text()
    assert len(first) > 10
    bench.run("dvc", "repro", "--force")
    assert outputs(bench) == first
    assert (bench.root / "dvc.lock").read_text() == lock

    ran = bench.run("dvc", "exp", "run", "-n", "cooler", "-S", "methods.kd.temperature=2").stdout
    executed = set(re.findall(r"Running stage '([^']+)'", ran))
    pair = next(iter(bench.params["pairs"]))
    assert executed == {f"distill@{pair}-kd-0", f"evaluate@{pair}-kd-0", "tables"}
    assert "cooler" in bench.run("dvc", "exp", "show", "--md").stdout
    assert "methods.kd.temperature" in bench.run("dvc", "params", "diff").stdout
    assert bench.run("dvc", "metrics", "diff").stdout.strip()

    bench.run("dvc", "push")
    bench.run("dvc", "exp", "apply", "cooler")
    kept = outputs(bench)
    bench.run("rm", "-rf", "artifacts", ".dvc/cache")
    bench.run("dvc", "pull", check=False)
    bench.run("dvc", "exp", "run", "-n", "again")  # the tables are in git; what the push held came back
    assert outputs(bench) == kept


def test_interrupted_and_run_again(bench: Workbench) -> None:
    """Ctrl-C in the middle, then the same command: it continues and ends with the same students."""
    bench.tiny(epochs=4)
    bench.run("snakemake", "--cores", "2")
    students = sorted(bench.root.glob("artifacts/digits/runs/**/students.safetensors"))
    first = {p: sha256_file(p) for p in students}
    bench.run("rm", "-rf", "artifacts/digits/runs", "artifacts/digits/metrics", "results/digits")
    process = bench.start("snakemake", "--cores", "1")
    deadline = time.monotonic() + 60
    while not list(bench.root.glob("artifacts/digits/logs/distill/**/*.log")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    bench.run("snakemake", "--cores", "2", "--rerun-incomplete")
    assert {p: sha256_file(p) for p in students} == first


TOY = '''"""Toy: mean squared error between the logits, a method made by a test."""

import torch.nn.functional as F

from distillery.config import Weight
from distillery.objectives.base import Batch, Objective


class Toy(Objective):
    """L = CE + weight * MSE(student logits, teacher logits)."""

    class Config(Objective.Config):
        weight: Weight = 0.1

    config: Config

    def distil(self, batch: Batch):
        return {"mse": self.config.weight * F.mse_loss(batch.student.logits, batch.teacher.logits)}
'''


def test_a_new_method_is_one_file_and_one_block(bench: Workbench) -> None:
    bench.run("snakemake", "--cores", "2")
    students = {p: p.stat().st_mtime_ns for p in bench.root.glob("artifacts/digits/runs/**/students.safetensors")}
    (bench.root / "toy.py").write_text(TOY)
    params = bench.params
    params["methods"]["toy"] = {"objective": "toy.py:Toy", "weight": 0.5}
    bench.params = params
    bench.run("snakemake", "--cores", "2")
    assert {p: p.stat().st_mtime_ns for p in students} == students, "the other methods were trained again"
    assert "toy" in (bench.root / "results/digits/table.csv").read_text()


def test_lint_and_slurm_profile_resolve(bench: Workbench) -> None:
    lint = bench.run("snakemake", "--lint", check=False)
    complaints = [
        line.strip()
        for line in (lint.stdout + lint.stderr).splitlines()
        if line.lstrip().startswith("* ") and "Specify a conda environment or container" not in line
    ]
    assert not complaints
    plan = bench.run("snakemake", "-n", "--profile", "slurm")
    assert "distill" in plan.stdout
