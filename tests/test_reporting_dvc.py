"""What `dvc metrics` and `dvc plots` make of the written results."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser import CHROMIUM, chromium, opened
from conftest import ROOT
from synthetic_study import Synthetic, params
from typer.testing import CliRunner

from distillery.cli import app

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

    result = CliRunner().invoke(app, ["plots", "--out", "plots"])
    assert result.exit_code == 0, result.output
    page = Path("plots/index.html").read_text()
    assert not re.findall(r"<script[^>]+src=|<link", page)  # every script is written out
    assert "DVC_METRIC" not in page  # every anchor of the template was filled
    for text in ('"field": "mean"', '"title": "test top-1, %"', '"facet": {"field": "pair"', '"method": "kd_10"'):
        assert text in page
    if CHROMIUM is not None:
        with chromium(tmp_path / "profile", "--host-resolver-rules=MAP * ~NOTFOUND") as browser:
            asyncio.run(drawn(browser, Path("plots/index.html")))


async def drawn(browser: str, page: Path) -> None:
    """The curves are seen, in a browser that reaches nobody."""
    async with opened(browser) as tab:
        await tab.visit(page)
        for _ in range(100):
            if await tab.js("document.querySelectorAll('canvas, svg.marks').length"):
                break
            await asyncio.sleep(0.1)
        colours = {tuple(pixel) for pixel in (await tab.screenshot()).reshape(-1, 3)}
        assert len(colours) > 50  # a page without scripts is white
        assert tab.troubles == []
