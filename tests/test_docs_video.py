"""docs/video.md: its block makes clips and a valid study of them, and it names every key and network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from distillery.data import SOURCES, open_source
from distillery.models import NETWORKS
from distillery.objectives import OBJECTIVES
from distillery.pipeline import check
from distillery.task import task_of

PAGE = (ROOT / "docs" / "video.md").read_text()


def test_the_block_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (drawing,) = re.findall(r"^python - <<'EOF'.*?\n(.*?)^EOF$", PAGE, re.MULTILINE | re.DOTALL)
    (block,) = re.findall(r"^cat > params.yaml <<'EOF'\n(.*?)^EOF$", PAGE, re.MULTILINE | re.DOTALL)
    exec(drawing, {})
    study = check.check(yaml.safe_load(block))
    assert task_of(study.task).part("rehearsal")(study, True) == []
    arrays = open_source(study.data.source, study.data.options).load()
    assert arrays.class_names == ["falls", "rises"] and arrays.tensors["train_images"].shape == (32, 16, 16, 6)
    still = arrays.tensors["train_images"].astype(int)
    bar = still[..., -1].mean(2).argmax(1) - still[..., 0].mean(2).argmax(1)
    assert ((bar > 0) == (arrays.tensors["train_labels"] == 0)).all()


def test_the_page_names_every_key_and_every_network() -> None:
    for source in ("frames", "moving_digits"):
        own = SOURCES[source].load().Config.model_fields.keys() - SOURCES["folder"].load().Config.model_fields.keys()
        assert all(f"`{key}`" in PAGE for key in own) and f"`{source}`" in PAGE
    own = {"correlation_weight", "distribution_weight", "cascade_epochs", "pseudo_labels"}
    assert own < OBJECTIVES["staged"].load().Config.model_fields.keys() and all(f"`{key}: " in PAGE for key in own)
    for family, suffix in (("resnet3d_8", "_rgb"), ("resnet3d_14", "_rgb")):
        assert f"`{family}_wW`" in PAGE and f"`{suffix}`" in PAGE
        assert all(f"{family}_w{width}{end}" in NETWORKS for width in (2, 4, 8, 16) for end in ("", suffix))
    for name in ("r3d_18", "mc3_18", "r2plus1d_18"):
        assert f"`{name}`" in PAGE and name in NETWORKS and f"{name}_grey" in NETWORKS
