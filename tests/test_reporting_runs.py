"""Runs of one cell that were made apart, by other machines or teachers, and pairs with a recipe of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_study import Synthetic, params

from distillery.pipeline import kept
from distillery.report import measures, story, table
from distillery.report.classwise import disagreement_rate, disagreement_with_teacher

BASES = {"kd": 80.0, "ce": 70.0, "kd_10": 85.0}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synthetic:
    monkeypatch.chdir(tmp_path)
    return Synthetic(tmp_path, params(seeds=["0-2", "3-5"]))


def block(study: Synthetic, seeds: str, **facts: Any) -> None:
    for method, base in BASES.items():
        study.cell("a-b", method, seeds, [base, base + 0.25, base + 0.5], **facts)


def test_each_run_names_its_own_machine(study: Synthetic) -> None:
    cost = {"parameters": 1, "extra_parameters": 0, "epochs": 30, "images_seen": 30000, "threads": 1}
    cost |= {"teacher_outputs": "view table", "teacher_forwards": 0}
    block(study, "0-2", cost=cost | {"device": "cpu", "hardware": "AMD EPYC"})
    block(study, "3-5", cost=cost | {"device": "cuda", "hardware": "NVIDIA H100"})
    rows = [row for row in measures.by_run(study.results) if row["method"] == "kd"]
    assert [row["device"] for row in rows] == ["cpu"] * 3 + ["cuda"] * 3
    assert [row["hardware"] for row in rows] == ["AMD EPYC"] * 3 + ["NVIDIA H100"] * 3
    assert "on AMD EPYC and NVIDIA H100" in dict(story.trained(study.results, table.build(study.results)))["Budget"]


def test_runs_of_another_training_of_the_teacher_are_named(study: Synthetic) -> None:
    study.teacher_accuracy = 60.0
    block(study, "3-5")
    assert kept.keep(study.plan)
    for path in [*Path("artifacts").rglob("*")]:
        if path.is_file():
            path.unlink()
    study.write_params(study.content)
    study.teacher_accuracy = 90.0
    block(study, "0-2")
    found = study.results
    cell = found.cells["a-b", "kd"]
    assert len(cell.runs) == 6
    said = "Taught by another training of the teacher than the one shown: a-b, KD (seeds 3 to 5)"
    assert any(note.startswith(said) for note in table.build(found).notes), table.build(found).notes
    own = [100 - next(iter(run["fidelity"].values()))["agreement"] for run in cell.runs.values()]
    assert disagreement_rate(disagreement_with_teacher(cell)) == pytest.approx(sum(own) / len(own))


def test_the_protocol_is_that_of_most_students_and_says_where_a_pair_has_another(study: Synthetic) -> None:
    usual = "30 epochs of SGD, batches of 32, learning rate 0.02"
    assert story.protocol(study.results).startswith(usual)
    study.content["pairs"]["a-b"]["recipe"] = {"epochs": 5, "lr": 0.001, "milestones": [3]}
    study.write_params(study.content)
    assert story.protocol(study.results).startswith("5 epochs of SGD, batches of 32, learning rate 0.001")
    for pair in ("b-c", "c-d"):
        study.content["pairs"][pair] = {k: v for k, v in study.content["pairs"]["a-b"].items() if k != "recipe"}
    study.write_params(study.content)
    said = story.protocol(study.results)
    assert said.startswith(usual) and said.endswith(
        "; epochs 5 instead of 30, learning rate 0.001 instead of 0.02, milestones 3 instead of 12 16 18 (a-b)"
    ), said
