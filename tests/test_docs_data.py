"""docs/data.md: every block with a study is valid when it is pasted, and the folder's leads to a table."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from own_images import photos
from test_tiny_imagenet import distributed
from workbench import Workbench

from distillery.data import SOURCES, open_source
from distillery.data.listing import TEST

PAGE = (ROOT / "docs" / "data.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_names_every_source_and_every_key() -> None:
    for source in SOURCES:
        assert f"`{source}`" in PAGE
    for source in ("folder", "npz"):
        for key in SOURCES[source].load().Config.model_fields:
            assert f"`{key}`" in PAGE, key
    assert all(f"`{name}`" in PAGE for name in TEST)
    with pytest.raises(Exception, match="root is missing"):
        open_source("folder", {})


@pytest.mark.slow
def test_the_blocks_run_when_they_are_pasted(tmp_path: Path) -> None:
    bench = Workbench(tmp_path / "copy")
    photos(bench.root / "photos", 30)
    distributed(bench.root / "tiny-imagenet-200")
    assert len(BLOCKS) == 4 and sum("snakemake" in block for block in BLOCKS) == 1
    for block in BLOCKS:
        done = bench.run("bash", "-ec", block, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + bench.logs()
        assert "params.yaml is valid" in done.stdout
    table = (bench.root / "results" / "photos" / "table.md").read_text()
    assert "kd" in table and "alone" in table


def test_blocks_are_shell(tmp_path: Path) -> None:
    for block in BLOCKS:
        assert subprocess.run(["bash", "-n", "-c", block], cwd=tmp_path).returncode == 0
