"""docs/results.md and docs/look.ipynb, pasted block by block into one session."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import small_study
from conftest import ROOT
from workbench import Workbench

pytestmark = pytest.mark.slow


def test_every_block_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Workbench(tmp_path / "copy")
    bench.tiny(epochs=2, methods=("ce", "kd"), seeds=("0-11",))
    bench.params = bench.params | {"data": {"source": "digits", "test_fraction": 0.9}}  # as in the demo
    monkeypatch.chdir(bench.root)
    small_study.make(tables=True)
    notebook(monkeypatch, capsys)
    session: dict[str, Any] = {}
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "results.md").read_text(), re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "python", "sh", "python", "yaml", "sh", "python"]
    capsys.readouterr()
    said = []
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, "docs/results.md", "exec"), session)
            said.append(capsys.readouterr().out)
        elif kind == "yaml":
            Path("params.yaml").write_text(text)
        else:
            said.append(bench.run("bash", "-euo", "pipefail", "-c", text).stdout)
    five, features, exported, programs, table, terms = said
    assert len(eval(five)) == 5 and features == "resnet20_w8 (1797, 32)\n"
    assert exported.startswith("my-student: model.safetensors ") and "model.onnx" in exported
    left, _, right = programs.partition(" tensor")
    assert re.findall(r"\d", left) == re.findall(r"\d", right) == eval(five)
    assert "student alone" in table and "resnet8_w4" in table
    assert eval(terms).keys() == {"ce", "tckd", "nckd"}


def notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the cells of the notebook, in the folder of a finished study."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    session: dict[str, Any] = {}
    cells = json.loads((ROOT / "docs" / "look.ipynb").read_text())["cells"]
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        assert cell["outputs"] == [], "clear its outputs before it is committed"
        exec(compile("".join(cell["source"]), f"docs/look.ipynb, code cell {number}", "exec"), session)
    said = re.findall(r"^(\w+) +(\d+\.\d+) %$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in said] == ["ce", "kd"] and all(0 < float(same) <= 100 for _, same in said)
