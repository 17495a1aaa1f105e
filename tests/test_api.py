"""The public names: complete, documented, and no short cut to everything for the identity of code.

docs/api.md is made of their docstrings; `DISTILLERY_WRITE_DOCS=1 pytest tests/test_api.py` writes it anew.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import api_page
import pytest
import torch
import yaml
from conftest import ROOT

from distillery import api
from distillery.objectives import OBJECTIVES
from distillery.pipeline import check, fingerprint, meaning, users_files

PAGE = ROOT / "docs" / "api.md"
METHOD = """
from distillery.api import Batch, Objective, Positive, kl_rows

class Mine(Objective):
    class Config(Objective.Config):
        temperature: Positive = 4.0

    def distill(self, batch: Batch):
        return {"mine": kl_rows(batch.student.logits, batch.teacher.logits, self.config.temperature).mean()}
"""


def test_the_page_is_made_of_the_docstrings() -> None:
    page = api_page.page()
    if os.environ.get("DISTILLERY_WRITE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "docs/api.md is not what the docstrings say: see the docstring of this test"


def test_every_name_is_on_the_page_once() -> None:
    listed = [name for names, _ in api_page.SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(api_page.public())


@pytest.mark.parametrize("name", sorted(api_page.public()))
def test_every_name_is_documented(name: str) -> None:
    thing = getattr(api, name)
    own = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    assert own or name in ("Positive", "Weight", "Finite", "Fraction", "Share", "Count", "Epochs")


def test_names_are_passed_on_as_they_are() -> None:
    body = ast.parse((ROOT / "src/distillery/api.py").read_text()).body[1:]
    aliases = [alias for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(isinstance(node, ast.ImportFrom) for node in body), "nothing is defined there"
    named = [(alias.name, alias.asname) for alias in aliases if alias.name != "annotations"]
    builders = [("build", "build_network"), ("build", "build_objective")]
    assert sorted((name, ours) for name, ours in named if name != ours) == builders


def test_the_package_itself_does_not_use_it() -> None:
    found = {p.name for p in (ROOT / "src").rglob("*.py") if "distillery.api import" in p.read_text()}
    assert found == {"api.py", "card.py"}, "in its docstring, and in what a model card tells its reader"


def test_a_method_depends_on_what_it_uses_and_not_on_all(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(METHOD)
    _, imported, _ = meaning.parsed(file, str(file))
    used = {"distillery.objectives.base", "distillery.objectives.soft", "distillery.config"}
    assert imported == used, "and neither distillery.api nor the export of students"


def values(file: Path) -> dict[str, Any]:
    names = {"task": {"name": "classification"}, "student": "resnet8_w2", "teachers": {}}
    return names | {"objective": {"objective": f"{file}:Mine"}}


def test_a_change_elsewhere_leaves_the_method_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text(METHOD)
    module = fingerprint._module

    def edited(name: str) -> str:
        def changed(called: str) -> fingerprint.Module:
            found = module(called)
            return found._replace(digest=f"edited {found.digest}") if called == name else found

        monkeypatch.setattr(fingerprint, "_module", changed)
        fingerprint._closure.cache_clear()
        return fingerprint.fingerprint("evaluate", values(file))

    before = edited("nothing")
    assert edited("distillery.students.export") == before != edited("distillery.objectives.soft")
    monkeypatch.undo()
    fingerprint._closure.cache_clear()


def test_a_package_of_ones_own_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its source; of an installed package the version is what counts."""
    package = tmp_path / "own_losses"
    package.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    contents = {"__init__.py": "", "mine.py": f"from .parts import weight\n{METHOD}", "parts.py": "weight = 1.0\n"}
    for name, text in contents.items():
        (package / name).write_text(text)

    def code() -> str:
        for cached in (fingerprint._module, fingerprint._closure):
            cached.cache_clear()
        return fingerprint.fingerprint("evaluate", values(Path("own_losses.mine")))

    before = code()
    (package / "parts.py").write_text("weight = 1.0  # the same\n")
    assert code() == before
    (package / "parts.py").write_text("weight = 7.0\n")
    assert code() != before
    study = yaml.safe_load((ROOT / "params.yaml").read_text())
    study["methods"] = {"mine": {"objective": "own_losses.mine:Mine"}}
    assert package in users_files.named_files(check.check(study | {"tables": {}}))

    installed = OBJECTIVES["torch.nn:Module"]
    assert fingerprint.own_source(installed) is None and fingerprint.own_source(OBJECTIVES["kd"]) is None
    assert fingerprint.version("torch") == f"torch {torch.__version__.partition('+')[0]}"
