"""The golden vectors of the repository are complete and small, and the comparison with them notices what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import golden
import numpy as np
import pytest
import torch

LOSSES = golden.VECTORS / "losses"


@pytest.fixture
def own_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository's set, also where the other tests compare with another one."""
    monkeypatch.delenv("DISTILLERY_GOLDEN", raising=False)
    monkeypatch.setattr(golden, "manifest", lambda: json.loads((LOSSES / "manifest.json").read_text()))
    monkeypatch.setattr(golden, "_archive", lambda name: dict(np.load(LOSSES / name, allow_pickle=False)))


def test_every_method_has_cases_in_every_setting(own_set: None) -> None:
    methods = golden.manifest()["methods"]
    assert len(methods) == 31 and golden.manifest()["n_cases"] == len(golden.manifest()["cases"]) == 510
    for method, facts in methods.items():
        cases = golden.cases(method)
        assert len(cases) == facts["cases"] <= facts["cases_in_full_set"]
        assert len(cases) >= min(6, facts["cases_in_full_set"])
        assert len({json.dumps(case["hyper"], sort_keys=True) for case in cases}) >= 2
        assert {case["dtype"] for case in cases} == {"float32", "float64"} or method == "vkd_weight_decay"


def test_the_set_is_small() -> None:
    sizes = {path: path.stat().st_size for path in golden.VECTORS.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 5.5e6
    assert max(sizes.values()) < 2**20


def test_the_comparison_notices_small_errors(own_set: None) -> None:
    case = next(c for c in golden.cases("kd") if c["dtype"] == "float64" and c["input_class"] == "normal")
    whole = torch.linspace(-1, 1, 160, dtype=torch.float64)
    assert len(golden.thinned(whole, 64)) == 54 and golden.thinned(whole, None) is whole
    loss = golden.expected(case)["loss"]
    golden.check(case, "loss", loss)
    for wrong in (loss * (1 + 1e-8), loss * torch.nan, torch.stack([loss, loss])):
        with pytest.raises(AssertionError):
            golden.check(case, "loss", wrong)


def test_thinning_meets_as_many_rows_and_columns_as_it_can() -> None:
    for rows, columns in ((16, 10), (16, 100), (128, 64)):
        kept = golden.thinned(torch.arange(rows * columns).reshape(rows, columns), 64)
        assert len(set((kept // columns).tolist())) == min(rows, len(kept))
        assert len(set((kept % columns).tolist())) == min(columns, len(kept))


def test_another_set_can_be_named_but_not_misspelt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DISTILLERY_GOLDEN", raising=False)
    assert golden.folder("losses") == LOSSES
    monkeypatch.setenv("DISTILLERY_GOLDEN", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="DISTILLERY_GOLDEN"):
        golden.folder("losses")
    (tmp_path / "losses").mkdir()
    assert golden.folder("losses") == tmp_path / "losses"
    assert golden.folder("architectures") == golden.VECTORS / "architectures"
    (tmp_path / "manifest.json").write_text("{}")  # the folder of the losses themselves
    assert golden.folder("losses") == tmp_path
    assert golden.folder("training_step") == golden.VECTORS / "training_step"
