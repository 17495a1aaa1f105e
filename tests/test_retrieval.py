"""Retrieval of labels: reading, metrics, losses by hand, studies, and a small study through the stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from small_study import make, write

from distillery.data import open_source, prepare
from distillery.data.multilabel import read
from distillery.errors import DistilleryError
from distillery.pipeline import check
from distillery.study.blocks import Recipe
from distillery.study.model import Study
from distillery.task import task_of
from distillery.tasks.retrieval.data import SetData
from distillery.tasks.retrieval.evaluation import RetrievalEvaluation
from distillery.tasks.retrieval.loader import SetLoader
from distillery.tasks.retrieval.objectives.base import one_versus_all
from distillery.tasks.retrieval.objectives.double import double_loss, mined
from distillery.tasks.retrieval.objectives.ova_kd import ova_kd_loss
from distillery.tasks.retrieval.training import best, hits_at

ROWS, FEATURES, LABELS = 240, 30, 12


def write_texts(path: Path) -> Path:
    """Each label has three words; a text has one to three labels, most of their words and some others."""
    random = np.random.Generator(np.random.PCG64(3))
    starts, columns = {"x": [0], "y": [0]}, dict[str, list[int]](x=[], y=[])
    for _ in range(ROWS):
        labels = np.sort(random.choice(LABELS, random.integers(1, 4), replace=False))
        likely = np.isin(np.arange(FEATURES) % LABELS, labels)
        words = np.flatnonzero(random.random(FEATURES) < np.where(likely, 0.8, 0.1))
        for kind, found in (("x", words), ("y", labels)):
            columns[kind] += found.tolist()
            starts[kind].append(len(columns[kind]))
    arrays = {f"{kind}_indptr": np.array(starts[kind]) for kind in "xy"}
    arrays |= {f"{kind}_indices": np.array(columns[kind]) for kind in "xy"}
    np.savez_compressed(path, shape=np.array([ROWS, FEATURES, LABELS]), **arrays)
    return path


STUDY: dict[str, Any] = {
    "study": "small",
    "task": "retrieval",
    "data": {"source": "multilabel", "path": "texts.npz"},
    "recipe": {
        **{"epochs": 40, "batch_size": 32, "lr": 0.02, "optimizer": {"name": "adam"}, "weight_decay": 0.0},
        **{"milestones": [], "augmentation": {"pad": 0, "flip": False}, "test_every": 20},
    },
    "teachers": {"wide": {"architecture": "mlp1_w64"}},
    "pairs": {"wide-linear": {"teacher": "wide", "student": "mlp1_w4"}},
    "methods": {
        "ova": {"objective": "ova"},
        "kd": {"objective": "ova_kd"},
        "double": {"objective": "double", "negatives": 6},
    },
    "seeds": ["0-1"],
    "tables": {"baseline": "ova"},
}


def test_both_formats_give_the_same(tmp_path: Path) -> None:
    features, labels = read(write_texts(tmp_path / "texts.npz"))
    lines = [f"{ROWS} {FEATURES} {LABELS}"]
    for words, tags in zip(features, labels, strict=True):
        lines.append(",".join(map(str, np.flatnonzero(tags))) + "".join(f" {w}:1" for w in np.flatnonzero(words)))
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "texts.txt").write_text("\n".join(lines) + "\n", encoding=encoding)
        for got, want in zip(read(tmp_path / "texts.txt"), (features, labels), strict=True):
            assert np.array_equal(got, want)
    (tmp_path / "texts.txt").write_text("0,1 3:0.5\n")
    with pytest.raises(DistilleryError, match="neither 0 nor 1"):
        read(tmp_path / "texts.txt")
    with pytest.raises(DistilleryError, match=r"name it in `data\.path`"):
        open_source("multilabel", {"path": str(tmp_path / "no.npz")}).shape()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-1 0:1\n1 1:1\n", "no whole number from 0"),
        ("1.7 0:1\n0 1:1\n", "no whole number from 0"),
        ("inf 0:1\n", "no whole number from 0"),
        ("5 4 3\n0 0:1\n2 1:1\n", "announces 5 rows, but has 2"),
        ("1 4 3\n7 0:1\n", "out of bounds"),
        ("99999999999 0:1\n", "label 99999999999 is beyond the 65,536 that can be stored"),
        ("0 0:1\n1 99999999999999999999:1\n", "too large"),
        ({"shape": 2}, "is not iterable|iteration over"),
        ({"shape": [2, 10**13, 3]}, "Unable to allocate"),
        ({"y_indices": [-1, 2]}, "no whole number from 0 to 2"),
        ({"y_indices": [0, 3]}, "no whole number from 0 to 2"),
        ({"x_indices": [0.0, 1.0]}, "no whole number from 0 to 3"),
        ({"x_indptr": [1, 1, 2]}, "begin and end where its entries do"),
        ({"x_indptr": [0, 3, 2]}, "begin and end where its entries do"),
    ],
)
def test_labels_that_are_none_are_refused(text: str | dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / ("texts.txt" if isinstance(text, str) else "texts.npz")
    if isinstance(text, str):
        path.write_text(text)
    else:
        good = {"x_indptr": [0, 1, 2], "x_indices": [0, 1], "y_indptr": [0, 1, 2], "y_indices": [0, 2]}
        arrays = {"shape": [2, 4, 3]} | good | text
        np.savez(path, **{key: np.array(of) for key, of in arrays.items()})  # type: ignore[arg-type]
    with pytest.raises(DistilleryError, match=said):
        read(path)


def test_every_row_with_a_label_is_trained_on_or_tested(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "texts.npz")
    prepare("multilabel", {"path": str(path)}, tmp_path / "arrays.safetensors")
    data = SetData.load(tmp_path / "arrays.safetensors", verify=True)
    features, labels = read(path)
    assert (len(data.train_labels), len(data.test_labels)) == (180, 60)
    got = torch.cat([torch.cat([i.flatten(1), s], 1) for i, s in _splits(data)])
    assert sorted(map(tuple, got.tolist())) == sorted(map(tuple, np.concatenate([features, labels], 1).tolist()))
    samples = SetLoader(data, Recipe(augmentation={"pad": 0, "flip": False})).epoch(0, 1).batch(slice(0, 16))
    assert samples.targets.equal(data.train_sets[samples.index].float())
    assert samples.inputs.flatten(1).equal(data.train_images[samples.index].flatten(1).float())


@pytest.mark.parametrize(("fraction", "said"), [(0.999, "train on: lower it"), (0.001, "test: raise it")])
def test_a_split_without_rows_is_refused_before_and_while_reading(fraction: float, said: str, tmp_path: Path) -> None:
    source = open_source("multilabel", {"path": str(write_texts(tmp_path / "texts.npz")), "test_fraction": fraction})
    for read_it in (source.shape, source.load):
        with pytest.raises(DistilleryError, match=rf"data\.test_fraction {fraction} leaves .* without rows to {said}"):
            read_it()


def _splits(data: SetData) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(data.train_images, data.train_sets), (data.test_images, data.test_sets)]


def test_precision_counts_hits_among_the_best() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.7, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    sets = torch.tensor([[1, 0, 0, 1, 0, 1], [1, 0, 0, 0, 0, 0]])
    found = {k: hits.tolist() for k, hits in hits_at(scores, sets).items()}
    assert found == {1: [1.0, 0.0], 3: [pytest.approx(2 / 3), 0.0], 5: [0.4, 0.0]}
    overlap = RetrievalEvaluation(task_of({"name": "retrieval"})).compare(scores[:1], scores[1:])
    assert overlap == {"overlap@5": pytest.approx(0.8)}  # {0, 1, 3, 4, 2} and {5, 4, 3, 2, 1}


def test_of_equal_scores_the_first_labels_are_the_best() -> None:
    """Whatever `topk` of a device does: in bfloat16 a fifth of the rows of a thousand labels have ties there."""
    assert best(torch.zeros(1, 300)).tolist() == [[0, 1, 2, 3, 4]]
    scores = torch.zeros(1, 300)
    scores[0, [7, 9, 200, 100, 50, 60, 290]] = torch.tensor([2.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert best(scores).tolist() == [[9, 7, 50, 60, 100]]


def test_losses_by_hand() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 7, dtype=torch.float64)
    targets = (torch.rand(3, 7) < 0.3).double()
    targets[0] = 0
    want = F.binary_cross_entropy_with_logits(student, targets, reduction="none").sum(1).mean()
    torch.testing.assert_close(one_versus_all(student, targets, 1 - targets), want)
    soft = F.binary_cross_entropy_with_logits(student / 2, (teacher / 2).sigmoid(), reduction="none").sum(1).mean()
    torch.testing.assert_close(ova_kd_loss(student, teacher, 2.0), 4 * soft)
    total = 0.0
    for s, t, y in zip(student.tolist(), teacher.tolist(), targets.tolist(), strict=True):
        wrong = sorted((i for i in range(7) if not y[i]), key=lambda i: -t[i])[:2]
        for i in range(7):
            p = 1 / (1 + np.exp(-t[i]))
            if y[i] or i in wrong:
                total += p * np.log1p(np.exp(-s[i])) / 3
            if i in wrong:
                total += (1 - p) * np.log1p(np.exp(s[i])) / 3
    assert double_loss(student, teacher, targets, negatives=2).item() == pytest.approx(total)


def test_all_negatives_of_labels_are_one_versus_all() -> None:
    student, teacher = torch.randn(2, 4, 9)
    targets = F.one_hot(torch.arange(4), 9)
    want = one_versus_all(student, targets, 1 - targets)
    torch.testing.assert_close(double_loss(student, teacher, targets, 9, positives="labels"), want)
    assert mined(teacher, targets, 100).equal(1.0 - targets)
    extreme = double_loss(1e4 * student, 1e4 * teacher, targets)
    assert extreme.isfinite()


LABELS_ONLY = {"objective": "double", "positives": "labels", "temperature": 2.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"source": "digits"}}, "digits has no sets of labels"),
        ({"pairs": {"p": {"teacher": "wide", "student": "resnet8_w4"}}}, "takes no rows of features"),
        ({"methods": {"kd": {"objective": "kd"}}, "tables": {}}, "kd is no objective of retrieval"),
        ({"methods": {"ova": {"objective": "ova"}, "d": {"objective": "double", "plugins": {"swap": {}}}}}, "plug-ins"),
        ({"methods": {"ova": {"objective": "ova", "ce_weight": 0}}}, "every term of ova has weight 0"),
        (
            {"methods": {"ova": {"objective": "ova"}, "d": {"objective": "double", "weight": 0}}},
            "every term of double has weight 0",
        ),
        (
            {"methods": {"ova": {"objective": "ova"}, "kd": {"objective": "ova_kd", "kd_weight": 0}}},
            "the distillation term of ova_kd has weight 0",
        ),
        (
            {"methods": {"ova": {"objective": "ova"}, "d": LABELS_ONLY}},
            'methods.d: temperature: has no effect with positives: "labels"',
        ),
        ({"recipe": STUDY["recipe"] | {"drop_path": 0.1}}, "no stochastic depth"),
        ({"recipe": STUDY["recipe"] | {"tap_preacts": True}}, "have no maps"),
        ({"recipe": STUDY["recipe"] | {"augmentation": {"pad": 0, "flip": False, "view_seed": 1}}}, "a row has one"),
        ({"recipe": STUDY["recipe"] | {"validation": 0.1}}, "cannot be held out"),
        ({"recipe": STUDY["recipe"] | {"augmentation": {"pad": 1, "flip": False}}}, "a row has one view"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, Any], said: str) -> None:
    study = check.check(STUDY | change)
    assert any(said in problem for problem in task_of(study.task).part("rehearsal")(study, False))


OWN = """
from distillery.config import Weight
from distillery.tasks.retrieval.objectives.base import RetrievalObjective

class Mine(RetrievalObjective):
    class Config(RetrievalObjective.Config):
        pull: Weight = 1.0

    @classmethod
    def faults(cls, config, epochs, teachers, hidden):
        yield from ["pull: give more epochs"] if epochs < 50 else []
"""


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "methods.mine: pull: give more epochs"),
        ({"pull": 0}, "methods.mine: the distillation term of {} has weight 0"),
    ],
)
def test_an_objective_of_the_users_says_what_it_asks_in_vain(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Weights are known by their type, whatever they are called."""
    (tmp_path / "mine.py").write_text(OWN)
    name = f"{tmp_path / 'mine.py'}:Mine"
    study = check.check(STUDY | {"methods": {"mine": {"objective": name} | keys}, "tables": {}})
    assert said.format(name) in task_of(study.task).part("rehearsal")(study, False)


@pytest.mark.parametrize("name", ["retrieval_bibtex", "retrieval_delicious"])
def test_the_studies_are_valid(name: str) -> None:
    study: Study = check.load(ROOT / f"workflow/studies/{name}.yaml")
    assert study.study == name and (len(study.methods), len(study.runs())) == (6, 30)
    assert task_of(study.task).part("rehearsal")(study, False) == []


@pytest.mark.slow
def test_a_study_ends_in_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "texts.npz")
    write(STUDY)
    make(tables=True)
    table = (tmp_path / "results/small/table.md").read_text()
    assert "test precision@1 in percent" in table and "double" in table
    record = json.loads((tmp_path / "artifacts/small/metrics/wide-linear/double/0-1.json").read_text())
    assert record["cost"]["teacher_outputs"] == "view table"
    for run in record["runs"]:
        assert 40 < run["last"]["precision@1"] <= 100 and 0 < run["fidelity"]["wide"]["overlap@5"] <= 1
