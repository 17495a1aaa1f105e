"""Every task's stages with a GPU that is not there: nothing that meets on the device is left on the CPU.

Each study is trained, measured and shown with its tensors marked as a GPU's (pretend_gpu.py): a batch, weight, index or
table on the wrong side fails here, not in the first hour on a cluster. Where there is a GPU, it trains each, too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import small_study
import torch
from small_studies import STUDIES, write


@pytest.mark.slow
def test_every_study_with_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """In a new process: what torch remembers of a GPU would meet the tests that follow, and a fork may never end."""
    tests = Path(__file__).with_name("on_pretend_gpu.py")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "--basetemp", tmp_path / "its"]
    done = subprocess.run([*command, tests], capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert f"{len(STUDIES) + 1} passed" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_ends_in_tables_on_a_device(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(kind)
    assert small_study.make(tables=True)[-1] == "tables"
