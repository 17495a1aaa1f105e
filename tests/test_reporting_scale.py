"""A study of 1,750 runs is aggregated in little memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic_study
from synthetic_study import Synthetic, params

from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records.schema import Metrics, read

PAIRS, METHODS, SEEDS = 10, 35, 5


def grow(made: Synthetic) -> None:
    """Write the metrics of every job: the measurements of one real job under other accuracies, with long curves."""
    job = made.cell("p0", "kd_0", f"0-{SEEDS - 1}", [70.0, 71.0, 72.0, 71.5, 70.5])
    measured, bulk = read(job.record, Metrics), artifacts.load_arrays(job.outputs["predictions"])
    generator = np.random.default_rng(0)
    for seed in range(SEEDS):
        for name in ("lr", "train_top1", "loss", "loss_ce", "loss_kd", "test_top1", "test_top5", "test_loss"):
            bulk[f"run.{seed}.curves.{name}"] = generator.uniform(0, 100, 240).round(6)
        bulk[f"run.{seed}.curves.epoch"] = np.arange(1.0, 241.0)
    for pair, method, block in made.study.cells():
        runs = [run | {"last": {"top1": round(generator.normal(71, 0.3), 2), "top5": 90.0}} for run in measured.runs]
        made.evaluation(pair, method, block, bulk, {"runs": runs, "teachers": measured.teachers})


@pytest.mark.slow
def test_a_study_of_1750_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic_study, "IMAGES", 10_000)
    monkeypatch.setattr(synthetic_study, "CLASSES", 100)
    pairs = {f"p{i}": {"teacher": "resnet20_w8", "student": "resnet8_w2"} for i in range(PAIRS)}
    methods = {"ce": {"objective": "ce"}}
    methods |= {f"kd_{i}": {"objective": "kd", "temperature": 1 + i / 4} for i in range(METHODS - 1)}
    seeds = [f"0-{SEEDS - 1}"]
    made = Synthetic(tmp_path, params(pairs=pairs, methods=methods, seeds=seeds, tables={"baseline": "ce"}))
    grow(made)
    assert aggregate() < 450
    table = (Layout("digits").results / "runs.csv").read_text().splitlines()
    assert len(table) == 1 + PAIRS * METHODS * SEEDS
    report = (Layout("digits").results / "report.html").read_text(encoding="utf-8")
    assert len(report) < 12_000_000 and report.count('<button data-cell="') == PAIRS * (METHODS + 1)
    assert "</html>" in report


def aggregate() -> float:
    """Run the stage as engines do, in a process of its own; return its largest memory in MB."""
    program = "from distillery.cli import main; main(['run', 'artifacts/digits/specs/tables.json'])"
    program = f"import atexit; atexit.register(lambda: print(open('/proc/self/status').read())); {program}"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    peak = re.search(r"VmHWM:\s*(\d+) kB", done.stdout)  # ru_maxrss would count this process, from which it is forked
    assert peak is not None
    return int(peak[1]) / 1000
