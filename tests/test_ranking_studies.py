"""The studies of UnKD: valid, of the size that they say, with weights from the range that they say."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import ROOT

from distillery.pipeline import check
from distillery.study.model import Study
from distillery.task import task_of
from distillery.tasks.ranking.objectives.cd import cd_loss
from distillery.tasks.ranking.objectives.rd import position_weights, rd_loss
from distillery.tasks.ranking.objectives.rrd import rrd_loss
from distillery.tasks.ranking.objectives.unkd import unkd_loss

# name: pairs, methods, runs
GRIDS = {"unkd_citeulike": (2, 6, 60), "unkd_citeulike_weights": (2, 26, 52), "unkd_citeulike_alone": (1, 5, 15)}
UNIT = {"rd": 30, "cd": 1, "rrd": 0.01, "unkd": 1, "one_stratum": 1}
FACTORS = (0.03, 0.1, 0.3, 1, 3)


def load(name: str) -> Study:
    return check.load(ROOT / f"workflow/studies/{name}.yaml")


@pytest.mark.parametrize("name", GRIDS)
def test_the_studies_are_valid(name: str) -> None:
    study = load(name)
    assert (len(study.pairs), len(study.methods), len(study.runs())) == GRIDS[name]
    assert task_of(study.task).part("rehearsal")(study, False) == []
    assert (ROOT / f"workflow/studies/{name}.yaml").read_text().startswith(f"# {name}: ")


def test_both_train_alike() -> None:
    final, tuning = load("unkd_citeulike"), load("unkd_citeulike_weights")
    assert final.teachers == tuning.teachers and final.pairs == tuning.pairs
    assert final.recipe.updated({"epochs": 60, "test_every": 60}) == tuning.recipe  # half as long, tested once


def test_the_student_that_is_varied_is_that_of_the_comparison() -> None:
    final, varied = load("unkd_citeulike"), load("unkd_citeulike_alone")
    alone = varied.methods[str(varied.tables.baseline)]
    assert varied.recipe.updated({"test_every": final.recipe.test_every}) == final.recipe
    assert alone.model_dump(exclude={"label"}) == final.methods["bpr"].model_dump(exclude={"label"})
    assert varied.pairs["lightgcn"].student == final.pairs["lightgcn"].student


def test_weights_are_from_one_range() -> None:
    final, tuning = load("unkd_citeulike"), load("unkd_citeulike_weights")
    tried: dict[str, list[float]] = {name: [] for name in UNIT}
    for method in tuning.methods.values():
        if method.objective in UNIT:
            tried[method.objective].append(method.hyper["weight"])
    assert tried == {name: pytest.approx([factor * unit for factor in FACTORS]) for name, unit in UNIT.items()}
    for name, unit in UNIT.items():
        assert any(final.methods[name].hyper["weight"] == pytest.approx(factor * unit) for factor in FACTORS), name


def test_the_units_make_the_terms_as_large_as_bpr() -> None:
    """log 2, for scores of zero."""
    zero = torch.zeros(4, 30, dtype=torch.float64)
    terms = {
        "rd": rd_loss(zero, position_weights(30, 1.0)),
        "cd": cd_loss(zero, zero),
        "rrd": rrd_loss(zero[:, :20].sigmoid(), zero[:, :20].sigmoid()),
        "unkd": unkd_loss(zero, zero),
    }
    for name, term in terms.items():
        assert UNIT[name] * term.item() == pytest.approx(math.log(2), rel=0.03)
