"""docs/related.md: its block is a valid study, and it names what it is about."""

from __future__ import annotations

import re

import yaml
from conftest import ROOT

from distillery.data import SOURCES
from distillery.pipeline import check
from distillery.task import task_of

PAGE = (ROOT / "docs" / "related.md").read_text()


def test_the_block_is_valid() -> None:
    (block,) = re.findall(r"^cat > params.yaml <<'EOF'\n(.*?)^EOF$", PAGE, re.MULTILINE | re.DOTALL)
    study = check.check(yaml.safe_load(block))
    assert task_of(study.task).part("rehearsal")(study, True) == []


def test_the_page_names_every_source_and_its_keys() -> None:
    for source in ("adult", "trifeature", "gaussian", "multilabel"):
        assert f"source: {source}" in PAGE or f"`{source}`" in PAGE
    for source in ("adult", "trifeature"):
        assert all(f"`{key}`" in PAGE for key in SOURCES[source].load().Config.model_fields)
    studies = ("fairness_adult", "fairness_trifeature", "why_distillation", "why_cifar100", "ensemble_unlabelled")
    for study in (*studies, "retrieval_bibtex", "retrieval_delicious"):
        assert f"`{study}`" in PAGE or f"study {study}" in PAGE
        assert (ROOT / f"workflow/studies/{study}.yaml").is_file()
        check.load(ROOT / f"workflow/studies/{study}.yaml")
