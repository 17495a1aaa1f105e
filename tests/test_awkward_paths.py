"""A working copy and an environment below folders whose names the shell would take apart."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from workbench import Workbench

from distillery.pipeline.layout import Layout

pytestmark = pytest.mark.slow


def test_snakemake_finds_the_commands_of_its_environment(tmp_path: Path) -> None:
    awkward = tmp_path / "my {project} $HOME & it's"
    (awkward / "copy").mkdir(parents=True)
    bench = Workbench(awkward / "copy")
    bench.tiny()
    environment = awkward / ".venv"
    environment.symlink_to(sys.prefix)
    elsewhere = os.pathsep.join(["/usr/bin", "/bin"])  # no `distillery` there
    done = bench.run(
        str(environment / "bin" / "python"),
        "-m",
        "snakemake",
        "--cores",
        "1",
        "--",
        "data",
        check=False,
        PATH=elsewhere,
    )
    assert done.returncode == 0, done.stderr + bench.logs()
    assert (bench.root / Layout("digits").data).exists()
