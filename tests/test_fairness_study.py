"""Fairness: Trifeature by its rule, the studies, and a small study through the stages with its tables and figures."""

from __future__ import annotations

import csv
import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from fairlearn.metrics import demographic_parity_difference
from small_study import STUDY, make, write

from distillery.data import open_source, prepare
from distillery.data.dataset import Dataset
from distillery.data.trifeature import COLOURS
from distillery.errors import DistilleryError
from distillery.pipeline import check
from distillery.records.io import load_arrays, sha256_array
from distillery.task import task_of
from distillery.tasks.fairness.sections import gaps, trends

SMALL = {"source": "trifeature", "train": 200, "test": 400}


def test_trifeature_is_correlated_in_training_alone() -> None:
    arrays = open_source("trifeature", {"train": 1000, "test": 400, "correlation": 0.8}).load().tensors
    for split, count in (("train", 100), ("test", 40)):
        label, group = arrays[f"{split}_labels"].astype(int), arrays[f"{split}_groups"].astype(int)
        assert np.bincount(label).tolist() == [count] * 10
        preferred = (group == label % 2).mean()
        assert preferred == (0.5 if split == "test" else pytest.approx(0.8, abs=0.05))
        assert np.array_equal(np.bincount(2 * label + group) == 20, np.full(20, split == "test")) or split == "train"


def test_the_colour_is_that_of_the_group() -> None:
    """The brightest pixels of an image are of the nearest of its group's five colours."""
    arrays = open_source("trifeature", SMALL_OPTIONS).load().tensors
    for image, group in zip(arrays["test_images"][::7], arrays["test_groups"][::7], strict=True):
        pixels = image.reshape(-1, 3).astype(float)
        brightest = np.median(pixels[np.argsort(pixels.sum(1))[-20:]], axis=0)
        assert np.square(COLOURS - brightest).sum(1).argmin() // 5 == group


def test_one_group_has_no_gap_that_could_be_called_fair(tmp_path: Path) -> None:
    prepare("trifeature", SMALL_OPTIONS, tmp_path / "arrays.safetensors")
    data = Dataset.load(tmp_path / "arrays.safetensors")
    assert data.test_groups is not None
    measure = task_of({"name": "fairness"}).part("evaluation")(task_of({"name": "fairness"})).measure
    assert measure(torch.randn(400, 10), data)["last"]["demographic_parity"] > 0
    with pytest.raises(DistilleryError, match=r"all test samples of .*trifeature are of one group, red to pink"):
        measure(torch.randn(400, 10), dataclasses.replace(data, test_groups=torch.zeros_like(data.test_groups)))


SMALL_OPTIONS = {key: value for key, value in SMALL.items() if key != "source"}


def test_trifeature_is_drawn_by_seed_and_refuses_what_it_cannot_draw() -> None:
    first, again, other = (open_source("trifeature", SMALL_OPTIONS | {"seed": s}).load().tensors for s in (0, 0, 1))
    assert sha256_array(first["train_images"]) == sha256_array(again["train_images"])
    assert sha256_array(first["train_images"]) != sha256_array(other["train_images"])
    texture = open_source("trifeature", SMALL_OPTIONS | {"label": "texture", "group": "shape"}).load()
    assert texture.class_names[5] == "dots" and texture.group_names == ["disc to star", "ring to frame"]
    for options, said in (({"group": "shape"}, "another attribute"), ({"train": 15}, "multiples of 10")):
        with pytest.raises(DistilleryError, match=said):
            open_source("trifeature", options)


def test_a_source_without_groups_is_refused() -> None:
    study = check.check(STUDY | {"task": "fairness"})
    problems = task_of(study.task).part("rehearsal")(study, True)
    assert any("digits names no groups" in problem for problem in problems)


@pytest.mark.parametrize("name", ["fairness_adult", "fairness_trifeature"])
def test_the_studies_are_the_papers_protocol(name: str) -> None:
    study = check.load(ROOT / f"workflow/studies/{name}.yaml")
    assert task_of(study.task).part("rehearsal")(study, False) == []
    assert len(study.teachers) == len(study.pairs) == 5 and len(study.runs()) == 200
    distilled = [m.hyper for m in study.methods.values() if m.objective == "kd"]
    assert [hyper["temperature"] for hyper in distilled] == [1, 2, 4, 6, 8, 10, 20]
    assert all((hyper["ce_weight"], hyper["kd_weight"]) == (0.2, 0.8) for hyper in distilled)


def cell(pair: str, temperature: float | None, values: list[float], **facts: Any) -> SimpleNamespace:
    task = task_of({"name": "fairness"})
    runs = {seed: {"last": {m.name: value for m in task.measures}} for seed, value in enumerate(values)}
    objective = {"objective": "ce"} if temperature is None else {"objective": "kd", "temperature": temperature}
    known = {
        "objective": objective,
        "recipe": {},
        "architecture": "s",
        "cost": {"teacher_outputs": "none" if temperature is None else "view table"},
        "teachers": {pair: {"architecture": "big", "last": runs[0]["last"]}},
    }
    method = f"m{temperature}"
    return SimpleNamespace(pair=pair, method=method, label=method.upper(), runs=runs, facts=known | facts)


def test_a_trend_is_found_where_there_is_one() -> None:
    task, random = task_of({"name": "fairness"}), np.random.default_rng(0)
    falling = [
        cell(f"p{p}", t, [1 - 0.05 * i + 0.01 * random.normal() for _ in range(3)])
        for p in range(5)
        for i, t in enumerate((1.0, 2.0, 4.0, 8.0))
    ]
    (section,) = trends(task, falling)
    assert [row[:2] for row in section.rows] == [(m.label, "falls") for m in task.measures]
    assert float(section.rows[0][2]) == pytest.approx(-0.05, abs=0.01)
    assert "in 5 blocks: a block is a teacher" in section.note and "in 3 blocks: a block is a seed" in section.note
    falling[0].runs.pop(2)  # a seed counts that all have
    assert "in 2 blocks: a block is a seed" in trends(task, falling)[0].note
    still = [cell(c.pair, c.facts["objective"]["temperature"], random.normal(size=3).tolist()) for c in falling]
    (section,) = trends(task, still)
    assert {row[1] for row in section.rows} == {"none seen"}
    assert trends(task, falling[:4]) == []  # one block


def test_a_block_is_a_teacher_and_a_family_has_one_student() -> None:
    task, temperatures = task_of({"name": "fairness"}), (1.0, 2.0, 4.0)

    def of(teachers: list[str], students: list[str]) -> list[SimpleNamespace]:
        return [
            cell(f"{t}-{s}-{i}", degree, [0.1 * j + i], architecture=s, teachers={t: {}})
            for t in teachers
            for i, s in enumerate(students)
            for j, degree in enumerate(temperatures)
        ]

    assert trends(task, of(["t0"], ["a", "b", "c"])) == trends(task, of(["t0"], ["a", "a", "a"])) == []
    alone, several = trends(task, of(["t0", "t1"], ["a", "a"])), trends(task, of(["t0", "t1"], ["a", "b"]))
    assert [s.title.rpartition(": ")[2] for s in alone] == ["kd"]
    assert [s.title.rpartition(": ")[2] for s in several] == ["kd, a", "kd, b"]
    assert all("in 2 blocks: a block is a teacher" in s.note for s in (*alone, *several))
    assert not any("a block is a seed" in s.note for s in (*alone, *several))  # each has one


def test_families_of_one_objective_have_titles_of_their_own() -> None:
    """As in the figure: by plug-ins, or else by the first method's label."""
    blocks: dict[str, dict[str, Any]] = {"a": {}, "b": {"kd_weight": 9.0}, "c": {"plugins": {"standardise": {}}}}
    cells = []
    for name, block in blocks.items():
        for t in (1.0, 2.0, 4.0):
            for pair in ("p0", "p1"):
                cells.append(cell(pair, t, [t], objective={"objective": "kd", "temperature": t} | block))
                cells[-1].label = f"{name} {t:g}"
    titles = [s.title.rpartition(": ")[2] for s in trends(task_of({"name": "fairness"}), cells)]
    assert titles == ["a 1", "b 1", "kd + standardise"]


def test_students_without_a_teacher_count_once() -> None:
    task = task_of({"name": "fairness"})
    cells = [cell(p, t, [1.0, 3.0]) for p in ("p0", "p1") for t in (None, 4.0)]
    rows = {row[0]: row[1:3] for row in gaps(task, cells).rows}
    assert rows == {"teacher big": ("2", "1.00 ± 0.00"), "MNONE": ("2", "2.00 ± 1.41"), "M4.0": ("4", "2.00 ± 1.15")}


@pytest.mark.slow
def test_a_study_of_groups_ends_in_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods = {f"kd_{t}": {"objective": "kd", "temperature": float(t)} for t in (1, 4, 16)}
    write(
        STUDY
        | {
            "task": "fairness",
            "data": SMALL | {"test": 100},
            "recipe": STUDY["recipe"]
            | {"epochs": 2, "milestones": [1], "augmentation": {"pad": 0, "flip": False}, "test_every": 2},
            "teachers": {f"t{i}": {"architecture": "resnet8_w4", "seed": i} for i in range(3)},
            "pairs": {f"p{i}": {"teacher": f"t{i}", "student": "resnet8_w2"} for i in range(3)},
            "methods": {"ce": {"objective": "ce"}} | methods,
            "seeds": ["0-1"],
            "tables": {"baseline": "ce"},
            "cache": {},
        }
    )
    make(tables=True)
    metrics = tmp_path / "artifacts/small/metrics/p1/kd_4/0-1.json"
    record, arrays = json.loads(metrics.read_text()), load_arrays(metrics.with_suffix(".safetensors"))
    assert len(arrays["groups"]) == 100 and record["data"]["groups"]["of"] == "colour"
    for entry in (*record["runs"], *record["teachers"].values()):  # teachers too
        assert {"demographic_parity", "equalised_odds", "individual"} < {*entry["last"]} and len(entry["groups"]) == 2
    predicted = arrays["run.0.predictions"].astype(int)
    worst = max(
        demographic_parity_difference(predicted == c, predicted == c, sensitive_features=arrays["groups"])
        for c in range(10)
    )
    assert record["runs"][0]["last"]["demographic_parity"] == pytest.approx(worst)
    table = (tmp_path / "results/small/table.md").read_text()
    assert "### Gaps between groups" in table and "### Trend in the temperature: kd" in table
    assert "#TC (after Holm)" in table  # three trainings of the teacher, in three pairs
    assert (tmp_path / "results/small/figures/gaps.svg").exists()
    with (tmp_path / "results/small/runs.csv").open() as file:
        assert all(0 <= float(run["demographic_parity_last"]) <= 1 for run in csv.DictReader(file))
    page = (tmp_path / "results/small/report.html").read_text()
    places = [page.index(f"<h2>{title}") for title in ("Gaps between groups", "Trend in the", "More figures")]
    assert all(a < b for a, b in pairwise(places))
