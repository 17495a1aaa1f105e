"""What `dvc metrics` and `dvc plots` make of the written results."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from synthetic_study import Synthetic, params

pytestmark = pytest.mark.slow


def dvc(*arguments: str) -> str:
    command = [str(Path(sys.executable).parent / "dvc"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_dvc_shows_metrics_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Synthetic(tmp_path, params(seeds=["0-2"]))
    for method, values in {"kd": [80.0, 81.0, 82.0], "ce": [79.0, 82.0, 80.0], "kd_10": [85.0, 86.0, 86.75]}.items():
        made.cell("a-b", method, "0-2", values)
    made.tables()
    subprocess.run(["git", "init", "-q"], check=True)
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", ".dvc/config")
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    shutil.copytree(ROOT / "workflow" / "plots", "workflow/plots")

    shown = json.loads(dvc("metrics", "show", "--json"))[""]["data"]
    assert shown["results/digits/summary.json"]["data"]["a-b"]["kd"] == {"top1": 81.0, "sd": 1.0, "n": 3}

    dvc("plots", "show", "--out", "plots")
    page = Path("plots/index.html").read_text()
    assert "DVC_METRIC" not in page  # every anchor of the template was filled
    for text in ('"field": "mean"', '"title": "test top-1, %"', '"facet": {"field": "pair"', '"method": "kd_10"'):
        assert text in page
