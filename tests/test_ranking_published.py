"""Ranking: the numbers of UnKD's paper, as the report reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import ROOT

from distillery.report.ledger import Comparison, compare
from distillery.report.published import method_name, numbers
from distillery.report.results import Cell
from distillery.study.blocks import Method, Recipe
from distillery.tasks.ranking import Ranking

FILE = ROOT / "src/distillery/tasks/ranking/published.json"


def test_all_numbers_are_there_each_once() -> None:
    tables = json.loads(FILE.read_text())["tables"]
    cells = [
        (table["dataset"], table["metric"], pair, method)
        for table in tables
        for pair, row in table["rows"].items()
        for method in row
    ]
    assert len(cells) == len(set(cells)) == 186
    assert all(0 < value < 1 for table in tables for row in table["rows"].values() for value in row.values())


@pytest.mark.parametrize(
    ("measure", "method", "value"),
    [
        ("recall@10", "teacher", 0.1518),
        ("recall@10", "bpr", 0.0760),
        ("recall@10", "unkd", 0.0863),
        ("recall@10_popular", "cd", 0.0887),
        ("recall@10_unpopular", "unkd", 0.0208),
        ("ndcg@10", "bpr", 0.0477),
    ],
)
def test_the_report_finds_them(measure: str, method: str, value: float) -> None:
    (entry,) = numbers("citeulike", measure)["bprmf_d100", "bprmf_d10", method]
    assert entry.value == value and entry.lineage == "unkd"


def test_the_control_is_held_against_nothing() -> None:
    pair = ("bprmf_d100", "bprmf_d10")
    found = {name: method_name(Method(objective=name)) for name in ("bpr", "unkd", "one_stratum")}
    assert [(*pair, name) in numbers("citeulike", "recall@10") for name in found.values()] == [True, True, False]


PAIR = ("bprmf_d100", "bprmf_d10")
RECIPE = {"epochs": 120, "batch_size": 2048, "lr": 0.01, "optimizer": {"name": "adam"}, "weight_decay": 0.0}


def against(method: str, scores: list[float], teacher: float = 0.15, **changes: Any) -> Comparison:
    """The verdict on runs whose last epoch is far off, and whose best one on the validation users has `scores`."""
    facts: dict[str, Any] = {
        "data": {
            "source": "citeulike",
            "counts": {"users": 5219, "items": 25181, "train": 110856, "val": 3000, "test": 11724},
        },
        "recipe": Recipe.model_validate(RECIPE | {"milestones": []}).effective(),
        "objective": {"objective": method, "decay": 0.01, "weight": 0.1},
        "teachers": {"big": {"architecture": PAIR[0], "last": {"recall@10": teacher}}},
    }
    runs = {seed: {"last": {"recall@10": 0.5}, "val_best": {"recall@10": s}} for seed, s in enumerate(scores)}
    (entry,) = numbers("citeulike", "recall@10")[(*PAIR, method)]
    cell = Cell("bprmf", method, method, Ranking().main, tuple(runs), runs, facts=facts | changes)
    return compare(cell, entry)


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [([0.085, 0.087, 0.086], "agrees"), ([0.095, 0.097, 0.096], "above"), ([0.075, 0.077, 0.076], "below")],
)
def test_cells_of_the_papers_own_data_get_a_verdict(scores: list[float], verdict: str) -> None:
    """Under the paper's convention, early stopping by the validation users: 0.0863 is printed of UnKD."""
    found = against("unkd", scores)
    assert (found.verdict, found.convention) == (verdict, "validation")
    assert found.reason == "ours of the tested epoch with the best recall@10 of the validation data"


def test_other_data_another_recipe_and_another_teacher_get_none() -> None:
    scores = [0.085, 0.087, 0.086]
    part = {"source": "citeulike", "counts": {"users": 5219, "items": 25181, "train": 9, "val": 1, "test": 1}}
    assert against("unkd", scores, data=part).reason == "not the full data set"
    slow = Recipe.model_validate(RECIPE | {"milestones": [], "lr": 0.001}).effective()
    assert against("unkd", scores, recipe=slow).reason == "lr 0.001 instead of 0.01"
    assert against("unkd", scores, teacher=0.1).reason == "another teacher (0.1000 instead of 0.1518)"
    assert against("bpr", [0.075, 0.077, 0.076], teacher=0.1).verdict == "agrees", "no teacher is in it"
    strata = {"objective": "unkd", "groups": 2}
    assert against("unkd", scores, objective=strata).reason == "groups 2 instead of 4"
