"""A teacher of one's own that is a formula: it holds nothing that could be trained, at most buffers."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_study import STUDY, make, write

from distillery.pipeline.check import load, rehearse

FORMULA = """\
import torch
from distillery.api import Network, Outputs


class Rule(Network):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.num_classes = num_classes
        {buffer}

    def forward(self, x, preacts=False):
        rows = x.flatten(1)
        return Outputs(rows[:, : self.num_classes] - rows[:, -self.num_classes :])
"""


@pytest.mark.slow
@pytest.mark.parametrize("buffer", ["pass", 'self.register_buffer("count", torch.zeros((), dtype=torch.int64))'])
def test_it_teaches(buffer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rule.py").write_text(FORMULA.format(buffer=buffer))
    recipe = STUDY["recipe"] | {"epochs": 1, "milestones": []}
    write(STUDY | {"teachers": {"t": {"architecture": "rule.py:Rule"}}, "recipe": recipe, "cache": {}})
    rehearse(load())
    assert "evaluate t-s kd 0" in make()
