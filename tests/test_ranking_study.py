"""Ranking: a whole study through the engine, from a file of users to the tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from small_ranking import write_users
from workbench import Workbench

STUDY: dict[str, Any] = {
    "study": "small",
    "task": "ranking",
    "data": {"source": "interactions", "path": "users.dat", "format": "users", "least": 5, "val_users": 0.3},
    "recipe": {
        "epochs": 12,
        "batch_size": 64,
        "lr": 0.02,
        "optimizer": {"name": "adam"},
        "milestones": [],
        "test_every": 4,
    },
    "teachers": {"big": {"architecture": "bprmf_d20"}},
    "pairs": {"big-small": {"teacher": "big", "student": "bprmf_d4"}},
    "methods": {
        "bpr": {"objective": "bpr", "label": "student alone"},
        "unkd": {"objective": "unkd", "label": "UnKD", "groups": 3, "weight": 1.0},
    },
    "seeds": ["0-1"],
    "tables": {"baseline": "bpr"},
}


@pytest.mark.slow
def test_a_study_of_recommenders_ends_in_tables(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    write_users(tmp_path / "users.dat")
    bench.params = STUDY
    bench.run("distillery", "check")
    bench.run("snakemake", "--cores", "1", "--quiet", "rules")
    with (tmp_path / "results/small/runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert [(run["method"], run["seed"]) for run in runs] == [(m, s) for m in ("bpr", "unkd") for s in ("0", "1")]
    for run in runs:
        for measure in ("recall@10", "ndcg@10", "recall@10_popular", "recall@10_unpopular", "popular_share"):
            assert 0 < float(run[f"{measure}_last"]) < 1
        assert 0 < float(run["val_ndcg@10"]) < 1 and 0 < float(run["overlap"]) < 1
        assert float(run["recall@10_test_best"]) >= float(run["recall@10_last"])
    shown = bench.run("distillery", "show").stdout
    assert "recall@10" in shown and "UnKD" in shown and "student alone" in shown
    record = json.loads((tmp_path / "artifacts/small/data/data.json").read_text())
    assert record["counts"]["users"] == 90 and "class_names" not in record
