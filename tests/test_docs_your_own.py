"""docs/your-own.md: every block does what the page says when it is pasted into a fresh copy of the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT
from workbench import Workbench

PAGE = (ROOT / "docs" / "your-own.md").read_text()
BLOCKS = dict(re.findall(r"^## (.*?)$.*?^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def test_the_page_has_a_block_for_everything_of_ones_own() -> None:
    assert list(BLOCKS) == ["Images", "A teacher and a student", "A method", "A metric", "A task"]


@pytest.mark.slow
def test_the_blocks_run_when_they_are_pasted(tmp_path: Path) -> None:
    bench, printed = Workbench(tmp_path / "copy"), {}
    for name, block in BLOCKS.items():
        done = bench.run("bash", "-ec", block, check=False)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}{bench.logs()}"
        assert "params.yaml is valid" in done.stdout
        printed[name] = done.stdout
    assert "own-images" in printed["Images"] and (bench.root / "results" / "own-streamed" / "table.md").exists()
    assert "vkd" in printed["A teacher and a student"]
    assert "mine_ls" in printed["A method"]
    head, *rows = [line.split(",") for line in printed["A metric"].splitlines() if line.count(",") == 3][-3:]
    assert head == ["method", "seed", "top1_last", "margin"] and all(float(row[-1]) for row in rows)
    table = (bench.root / "results" / "own-task" / "table.md").read_text()
    assert "mean error of the number of dark pixels, the last epoch" in table and "lower is better" in table
    assert bench.git("status", "--short", "src") == "", "nothing in src/ was edited"
