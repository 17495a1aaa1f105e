"""Hidden labels: which are hidden, from whom, and what the ensemble makes of the images that have none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from logit_batches import batch, context, total
from logit_cases import made
from small_study import STUDY, due, make, write

from distillery.data import prepare
from distillery.data.dataset import UNLABELLED, Dataset
from distillery.errors import DistilleryError
from distillery.models.base import Outputs
from distillery.objectives import ensemble
from distillery.objectives.base import Batch, Context
from distillery.objectives.ensemble import ensemble_loss
from distillery.objectives.soft import kl_rows
from distillery.pipeline import check
from distillery.pipeline.planner import resolve
from distillery.study.model import Study
from distillery.task import task_of
from distillery.training.history import load_history

ENSEMBLE: dict[str, Any] = STUDY | {
    "data": {"source": "digits", "labelled": 0.1},
    "teachers": {f"t{i}": {"architecture": "resnet8_w4", "seed": i, "recipe": {"epochs": 30}} for i in range(2)},
    "pairs": {"two": {"teacher": ["t0", "t1"], "student": "resnet8_w4"}},
    "methods": {"ce": {"objective": "ce"}, "ens": {"objective": "ensemble"}},
    "tables": {"baseline": "ce"},
    "cache": {"pooled": False},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("digits") / "arrays.safetensors"
    prepare("digits", {}, path)
    return Dataset.load(path)


def test_a_share_of_each_class_keeps_its_label(digits: Dataset) -> None:
    hidden, shown = digits.hide_labels(0.1, leave_out=False), digits.hide_labels(0.1, leave_out=True)
    keep = hidden.train_labels != UNLABELLED
    assert hidden.train_labels[keep].equal(digits.train_labels[keep])
    want = [round(0.1 * n) for n in digits.train_labels.bincount().tolist()]
    assert hidden.train_labels[keep].bincount().tolist() == want
    assert shown.train_labels.equal(digits.train_labels[keep]) and shown.train_images.equal(digits.train_images[keep])
    assert shown.rows.equal(digits.rows[keep])  # where a view table has them
    assert hidden.test_labels.equal(digits.test_labels)
    one = digits.hide_labels(0.001, leave_out=True)
    assert one.train_labels.tolist() == list(range(10))  # never none


def test_hidden_labels_are_part_of_what_trains_and_of_nothing_else() -> None:
    plans = [
        resolve(Study.model_validate(ENSEMBLE | {"data": {"source": "digits"} | more}))
        for more in ({}, {"labelled": 0.5})
    ]
    stages = {a.stage for a, b in zip(*plans, strict=True) if a.values != b.values}
    assert stages == {"teacher", "distill", "tables"}


def test_a_study_where_it_means_nothing_is_refused() -> None:
    ranking = {"task": "ranking", "data": {"source": "interactions", "path": "x", "labelled": 0.5}}
    with pytest.raises(DistilleryError, match=r"data\.labelled: the task ranking has no labels to hide"):
        check.check(STUDY | ranking)
    chosen = {"ens": {"objective": "ensemble", "plugins": {"select": {"score": "margin", "fraction": 0.5}}}}
    study = check.check(ENSEMBLE | {"methods": chosen, "tables": {}})
    problems = task_of(study.task).part("rehearsal")(study, True)
    assert any("a selection reads the label of every image" in problem for problem in problems)
    mixed = {"augmentation": {"pad": 1, "flip": False, "then": [{"name": "mixup"}]}}
    study = check.check(ENSEMBLE | {"recipe": STUDY["recipe"] | mixed})
    assert any("mixed labels" in problem for problem in task_of(study.task).part("rehearsal")(study, True))


def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 4).double(), torch.randn(3, 6, 4).double(), torch.tensor([0, 1, 2, -1, 3, -1])


def test_without_all_three_it_is_kd_from_the_mean_of_the_teachers() -> None:
    student, teachers, labels = rows()
    mean = (teachers / 2).softmax(2).mean(0).log()
    got = ensemble_loss(student, teachers, labels, 2.0, weighting=False, scaling=False, disagreeing=False)
    torch.testing.assert_close(got, 4 * kl_rows(student / 2, mean).mean())


@pytest.mark.parametrize("correctness", ["probability", "inverse_loss"])
def test_weights_and_scales_by_hand(correctness: ensemble.Correctness) -> None:
    student, teachers, labels = rows()
    total = torch.zeros((), dtype=torch.float64)
    for b, y in enumerate(labels.tolist()):
        p, q = teachers[:, b].softmax(1), (student[b] / 2).softmax(0)
        if y < 0:
            weight, mean = torch.ones(3).double() / 3, p.mean(0)
            scale = 1 + sum((r * (r / mean).log()).sum() for r in p) / 3 / torch.tensor(3.0).log()
        else:
            loss = -p[:, y].log()
            correct = p[:, y] if correctness == "probability" else 1 / (1 + loss)
            weight = correct / correct.sum()
            scale = correct.mean() if correctness == "probability" else 1 / (1 + loss.mean())
        target = (weight[:, None] * (teachers[:, b] / 2).softmax(1)).sum(0)
        total += 4 * scale * (target * (target / q).log()).sum() / 6
    torch.testing.assert_close(ensemble_loss(student, teachers, labels, 2.0, correctness), total)


def test_switches_act_on_their_rows_alone() -> None:
    student, teachers, labels = rows()
    student.requires_grad_()

    def gradient(**options: bool) -> torch.Tensor:
        return torch.autograd.grad(ensemble_loss(student, teachers, labels, 2.0, **options), student)[0]

    whole, known = gradient(), labels >= 0
    for option, acts in (("weighting", known), ("scaling", known), ("disagreeing", ~known)):
        changed = (gradient(**{option: False}) - whole).abs().amax(1) > 1e-12
        assert changed.equal(acts), option


@pytest.mark.parametrize("plugin", ["swap", "revise", "standardise"])
def test_teachers_are_judged_by_what_they_said_themselves(plugin: str) -> None:
    """Put right by a plug-in, a wrong teacher would be trusted as much as a right one."""
    right, wrong, labels = torch.eye(4).double()[[0]] * 6, torch.eye(4).double()[[3]] * 9, torch.tensor([0])
    objective = made("ensemble", context(labels, right), {plugin: {}}, ce_weight=0.0)
    student = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    _, of_right = objective.logits(student, right, labels)
    loss = total(objective, batch(student, (right, wrong), labels))
    trusted = ensemble_loss(objective.logits(student, right, labels)[0], of_right[None], labels, scaling=False)
    both = torch.stack([right, wrong]).softmax(2)[:, 0, 0].mean()  # the ensemble's correctness scales the image's loss
    torch.testing.assert_close(loss, 0.9 * both * trusted, rtol=0.01, atol=0)


def test_the_study_is_valid() -> None:
    study = check.load(ROOT / "workflow/studies/ensemble_unlabelled.yaml")
    assert (len(study.methods), len(study.runs())) == (8, 24) and study.data.labelled == 0.1
    assert task_of(study.task).part("rehearsal")(study, False) == []


@pytest.mark.slow
def test_images_without_a_label_help_the_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the stages: teachers and `ce` see a tenth of the images, the ensemble's student all of them."""
    monkeypatch.chdir(tmp_path)
    write(ENSEMBLE)
    make()
    seen = {
        method: json.loads((tmp_path / f"artifacts/small/runs/two/{method}/0/runs.json").read_text())["images_seen"]
        for method in ("ce", "ens")
    }
    assert seen["ce"] == 5 * 90 and 890 * 5 < seen["ens"] < 910 * 5
    scores = {
        method: json.loads((tmp_path / f"artifacts/small/metrics/two/{method}/0.json").read_text())["runs"][0]["last"][
            "top1"
        ]
        for method in ("ce", "ens")
    }
    assert scores["ens"] > scores["ce"] + 5
    shown = load_history(tmp_path / "artifacts/small/runs/two/ens/0/history.safetensors")["0"][-1]["train_top1"]
    assert shown > 10, "of the tenth that has labels, not of all"
    write(ENSEMBLE | {"data": {"source": "digits", "labelled": 0.2}})
    assert {job.split()[0] for job in due()} == {"teacher", "cache", "pair", "distill", "evaluate"}


def test_unlabelled_rows_have_no_cross_entropy() -> None:
    student, teachers, labels = rows()
    total = F.cross_entropy(student, labels, ignore_index=UNLABELLED)
    batch = Batch(labels, Outputs(student), tuple(map(Outputs, teachers)), torch.ones(()), torch.arange(6))
    objective = ensemble.Ensemble(Context(4, labels, Outputs(student[:1])))
    torch.testing.assert_close(objective.supervised(batch)["ce"], 0.1 * total)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "recipe"), [({"labelled": 0.2}, {}), ({}, {"validation": 0.1})], ids=["labelled", "validation"]
)
def test_an_objective_that_predicts_and_knows_each_image(
    data: dict[str, Any], recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is rebuilt for its evaluation with the images that it was trained on, not with all there are."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "import torch\nfrom distillery.api import Objective\n\n\nclass Mine(Objective):\n    needs = frozenset()\n\n"
        "    def __init__(self, context, config=None):\n        super().__init__(context, config)\n"
        "        self.register_buffer('seen', torch.zeros(len(context.labels)))\n\n"
        "    def predict(self, outputs):\n        return outputs.logits + self.seen.sum()\n\n"
        "    def distill(self, batch):\n"
        "        return {'mine': self.cross_entropy(self.predict(batch.student), batch.targets)}\n"
    )
    short = STUDY["recipe"] | {"epochs": 1, "milestones": [], "channels_last": False} | recipe
    methods = {"mine": {"objective": "mine.py:Mine", "ce_weight": 0}}
    changes = {"data": STUDY["data"] | data, "recipe": short, "methods": methods}
    write(STUDY | changes | {"tables": {}, "cache": {"enabled": False}})
    assert make()[-1] == "evaluate t-s mine 0"
