"""Ranking: the numbers of UnKD's paper, as the report reads them."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT

from distillery.report.published import method_name, numbers
from distillery.study.blocks import Method

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
