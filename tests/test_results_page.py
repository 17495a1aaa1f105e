"""docs/results.md, pasted block by block into one session."""

from __future__ import annotations

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
    bench.tiny(epochs=2, methods=("ce", "kd"), seeds=("0-2",))
    monkeypatch.chdir(bench.root)
    small_study.make()
    session: dict[str, Any] = {}
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "results.md").read_text(), re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "python", "sh", "python", "yaml", "sh"]
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
    five, features, exported, programs, table = said
    assert len(eval(five)) == 5 and features == "resnet20_w8 (1797, 32)\n"
    assert exported.startswith("my-student: model.safetensors ") and "model.onnx" in exported
    left, _, right = programs.partition(" tensor")
    assert re.findall(r"\d", left) == re.findall(r"\d", right) == eval(five)
    assert "student alone" in table and "resnet8_w2" in table
