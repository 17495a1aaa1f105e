"""Ranking: what `distillery check` says about a study of recommenders."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from small_ranking import write_users

from distillery.data import SOURCES
from distillery.models import NETWORKS
from distillery.objectives import OBJECTIVES
from distillery.pipeline.check import check, rehearse
from distillery.task import task_of

STUDY: dict[str, Any] = {
    "study": "small",
    "task": "ranking",
    "data": {"source": "interactions", "path": "users.dat", "format": "users", "least": 5},
    "recipe": {"epochs": 3, "lr": 0.01, "optimizer": {"name": "adam"}, "milestones": []},
    "teachers": {"t": {"architecture": "bprmf_d20"}, "u": {"architecture": "lightgcn_d20"}},
    "pairs": {"p": {"teacher": "t", "student": "bprmf_d4"}},
    "methods": {
        "bpr": {"objective": "bpr"},
        "unkd": {"objective": "unkd", "groups": 3},
        "one": {"objective": "one_stratum"},
    },
    "seeds": ["0-2"],
    "tables": {"baseline": "bpr"},
}


def problems(study: dict[str, Any]) -> list[str]:
    found = check(study)
    return list(task_of(found.task).part("rehearsal")(found, True))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    write_users(tmp_path / "users.dat")
    return copy.deepcopy(STUDY)


def test_a_study_of_recommenders_is_valid(study: dict[str, Any]) -> None:
    rehearse(check(study))


@pytest.mark.parametrize(
    ("block", "change", "says"),
    [
        ("data", {"path": "nowhere.dat"}, "data: there is no file nowhere.dat"),
        ("methods", {"kd": {"objective": "kd"}}, "methods.kd: kd is no objective of recommenders"),
        ("methods", {"rd": {"objective": "rd", "topp": 3}}, "methods.rd: unknown key 'topp': did you mean 'top'?"),
        ("methods", {"cd": {"objective": "cd", "weight": 0}}, "methods.cd: the distillation term of cd has weight 0"),
        ("methods", {"b": {"objective": "bpr", "ce_weight": 0}}, "methods.b: every term of bpr has weight 0"),
        # What a key says has an effect, or is refused.
        (
            "methods",
            {"o": {"objective": "one_stratum", "power": 1.0}},
            "methods.o: power: has no effect with groups: 1",
        ),
        ("methods", {"r": {"objective": "rd", "mu": 0.5}}, "methods.r: mu: has no effect in 3 epochs"),
        ("methods", {"r": {"objective": "rd", "samples": 5}}, "methods.r: samples: has no effect in 3 epochs"),
        ("recipe", {"augmentation": {"then": [{"name": "mixup"}]}}, "recipe.augmentation: there are no images"),
        ("recipe", {"drop_path": 0.1}, "recipe.drop_path: recommenders have no stochastic depth"),
        ("recipe", {"tap_preacts": True}, "recipe.tap_preacts: recommenders have no maps"),
        ("pairs", {"q": {"teacher": "t", "student": "resnet8_w4"}}, "pairs.q: resnet8_w4 takes images"),
        (
            "pairs",
            {"q": {"teacher": ["t", "u"], "student": "bprmf_d4"}},
            "unkd learns from one teacher, and pair q",
        ),
        (
            "methods",
            {"s": {"objective": "unkd", "plugins": {"standardise": {}}}},
            "methods.s: plug-ins and partners",
        ),
        ("recipe", {"validation": 0.1}, "recipe.validation: has no effect"),
        ("recipe", {"precision": "bfloat16"}, "recipe.precision: recommenders train in float32"),
        ("recipe", {"label_smoothing": 0.1}, "recipe.label_smoothing: there are no classes"),
    ],
)
def test_what_would_fail_is_named(study: dict[str, Any], block: str, change: dict[str, Any], says: str) -> None:
    study[block] |= change
    assert any(says in problem for problem in problems(study)), problems(study)


def test_images_are_no_data_for_recommenders(study: dict[str, Any]) -> None:
    study["data"] = {"source": "digits"}
    assert "data.source: digits has no pairs of users and items: take citeulike or interactions" in problems(study)


def test_components_of_the_task_are_found_and_not_listed() -> None:
    for registry, name in ((OBJECTIVES, "unkd"), (NETWORKS, "bprmf_d10"), (SOURCES, "citeulike")):
        assert name in registry and name not in list(registry)
        assert registry[name].load().__module__.startswith("distillery.tasks.ranking")
        assert len(registry) == len(list(registry))


def test_the_page_is_true() -> None:
    """docs/ranking.md: its study is valid, its keys and defaults, names and sha256 are those of the code."""
    page = (ROOT / "docs/ranking.md").read_text()
    (block,) = re.findall(r"<<'EOF'\n(.*?)EOF\n", page, re.DOTALL)
    study = check(yaml.safe_load(block))
    assert not task_of(study.task).part("rehearsal")(study, False)
    sources = {name: SOURCES[name].load() for name in ("interactions", "citeulike")}
    assert sources["citeulike"].sha256 in page
    rows = [[text.strip() for text in line.split("|")] for line in page.partition("| key |")[2].splitlines()]
    keys = {row[1].strip("`"): row[2:4] for row in rows if len(row) > 4}
    for key, field in sources["interactions"].Config.model_fields.items():
        theirs = sources["citeulike"].Config.model_fields[key].default
        assert keys[key] == (["", ""] if field.is_required() else [str(field.default), str(theirs)]), key
    named = set(re.findall(r"^\| `(\w+)` \|", page.partition("| `objective:` |")[2], re.MULTILINE))
    assert named == {row.name for row in OBJECTIVES._rows.values() if "tasks.ranking" in row.module}


def test_an_optimiser_of_the_users_own_may_fail(study: dict[str, Any]) -> None:
    Path("own.py").write_text(
        "from distillery.api import Optimizer\n\n\nclass Bad(Optimizer):\n"
        "    def build(self, *args, **keys):\n        raise RuntimeError('no luck')\n"
    )
    found = problems(study | {"recipe": study.get("recipe", {}) | {"optimizer": {"name": "own.py:Bad"}}})
    assert found and all("optimizer Bad raises RuntimeError: no luck" in line for line in found), found
