"""Known class probabilities: Bayes' rule, teachers that are formulas, and the paper's claims about the risk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.stats import multivariate_normal

from distillery.data import open_source, prepare
from distillery.data.dataset import Dataset
from distillery.data.gaussian import weight_of
from distillery.errors import DistilleryError
from distillery.models.bayes import Bayes
from distillery.pipeline import check
from distillery.study.blocks import Method, Recipe
from distillery.task import task_of
from distillery.tasks.known.evaluation import KnownEvaluation
from distillery.tasks.known.sections import worth
from distillery.tasks.known.training import KnownTraining, bayes_log_probs, excess

OPTIONS = {"features": 5, "classes": 3, "separation": 1.5, "train": 4000, "test": 4000}
RECIPE = Recipe(batch_size=50, augmentation={"pad": 0, "flip": False})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("gaussian") / "arrays.safetensors"
    prepare("gaussian", OPTIONS, path)
    return Dataset.load(path, verify=True)


def network(name: str, data: Dataset) -> Bayes:
    found = KnownTraining().network(name, data)
    assert isinstance(found, Bayes)
    return found


def test_bayes_rule_is_that_of_the_densities(data: Dataset) -> None:
    rows = data.normalise(data.test_images[:200], torch.float64).flatten(1).numpy()
    means = weight_of(1.5, 3, 5)  # the weights of the logits are the means
    assert np.linalg.norm(means[0] - means[1]) == pytest.approx(1.5)
    densities = np.stack([multivariate_normal(mean).pdf(rows) for mean in means], axis=1)
    want = densities / densities.sum(1, keepdims=True)
    assert bayes_log_probs(data)[:200].exp().numpy() == pytest.approx(want, abs=1e-6)


def test_labels_are_drawn_from_it(data: Dataset) -> None:
    """As often as p* says, in bins of it, within four standard errors."""
    p, labels = bayes_log_probs(data).exp().numpy(), data.test_labels.numpy()
    for c in range(3):
        for low in np.arange(0, 1, 0.2):
            of = (p[:, c] >= low) & (p[:, c] < low + 0.2)
            error = np.sqrt((p[of, c] * (1 - p[of, c])).sum()) / of.sum()
            assert abs((labels[of] == c).mean() - p[of, c].mean()) < 4 * error


def test_teachers_that_are_formulas(data: Dataset) -> None:
    rows, bayes = data.normalise(data.test_images), bayes_log_probs(data)
    found = {
        name: network(name, data)(rows).logits for name in ("bayes", "bayes_sharp3", "bayes_flat3", "bayes_noise1")
    }
    assert excess(found["bayes"], bayes) < 1e-9
    for name in ("bayes_sharp3", "bayes_flat3"):
        assert found[name].argmax(1).equal(found["bayes"].argmax(1))  # as accurate
        assert excess(found[name], bayes) > 0.05
    noise = (found["bayes_noise1"] - found["bayes"]).double()
    assert noise.std().item() == pytest.approx(1, rel=0.1) and abs(noise.mean().item()) < 0.1
    assert not any(p.requires_grad for p in network("bayes", data).parameters())


def test_the_risk_with_bayes_rule_varies_less_about_the_same_mean(data: Dataset) -> None:
    """Propositions 2 and 3, and the bias of a teacher that is too sure."""
    evaluation = KnownEvaluation(task_of({"name": "known"}))
    torch.manual_seed(0)
    student = torch.randn(len(data.test_labels), 3)
    risk = evaluation.measure(student, data)["risk"]
    error = 4 * (risk["labels"]["variance"] / len(data.test_labels)) ** 0.5
    assert abs(risk["labels"]["mean"] - risk["bayes"]["mean"]) < error
    assert risk["bayes"]["variance"] < risk["labels"]["variance"]
    rows = data.normalise(data.test_images)
    exact, sharp = (evaluation.compare(student, network(n, data)(rows).logits) for n in ("bayes", "bayes_sharp3"))
    assert exact["risk_mean"] == pytest.approx(risk["bayes"]["mean"], abs=1e-5)
    assert exact["risk_variance"] == pytest.approx(risk["bayes"]["variance"], rel=1e-4)
    assert sharp["risk_variance"] > exact["risk_variance"]


def test_every_seed_draws_its_own_sample_and_keeps_it(data: Dataset) -> None:
    loader = KnownTraining().loader(data, RECIPE)
    epochs = [[*map(int, loader.epoch(seed, e).batch(slice(0, 50)).index)] for seed, e in ((0, 1), (0, 2), (1, 1))]
    assert loader.count == 50 and all(len({*epoch}) == 50 for epoch in epochs)
    assert sorted(epochs[0]) == sorted(epochs[1]) != sorted(epochs[2]) and epochs[0] != epochs[1]


def test_all_runs_are_changed_alike_if_the_recipe_says_so(data: Dataset) -> None:
    """What changes rows after they are drawn has the views' seed; which rows they are stays the run's."""
    said = {"pad": 0, "flip": False, "view_seed": 7, "then": [{"name": "mixup"}]}
    loader = KnownTraining().loader(data, RECIPE.updated({"augmentation": said}))
    one, other = (loader.epoch(seed, 1) for seed in (0, 1))
    assert one.seed == other.seed == 7 and not torch.equal(one.index.sort()[0], other.index.sort()[0])


def test_a_formula_is_assembled_with_nothing_to_train(data: Dataset) -> None:
    training = KnownTraining()
    trainee = training.assemble("bayes", Method(objective="ce"), data, [], 0)
    assert trainee.parameters() == []
    scores = training.test(trainee, training.loader(data, RECIPE), RECIPE)
    assert scores["test_excess"] < 1e-9 and 55 < scores["test_top1"] < 85


def test_a_sample_is_no_larger_than_the_rows_there_are() -> None:
    facts: dict[str, Any] = {
        "recipe": {"batch_size": 1000},
        "data": {"counts": {"train": 400}},
        "cost": {"teacher_outputs": "none"},
        "architecture": "linear",
    }
    risk = {"mean": 0.5, "variance": 0.1}
    run = {"last": {"excess": 0.1, "top1": 80.0}, "risk": {"labels": risk, "bayes": risk}}
    (row,) = worth([SimpleNamespace(pair="p", method="m", label="M", runs={0: run}, facts=facts)]).rows
    assert row[:4] == ("M", "labels", "400", "1")


def test_each_of_several_teachers_has_its_risk() -> None:
    last = {"excess": 0.1, "top1": 80.0}
    facts: dict[str, Any] = {
        "recipe": {"batch_size": 100},
        "data": {"counts": {"train": 400}},
        "cost": {"teacher_outputs": "view table"},
        "architecture": "linear",
        "teachers": {"b": {"last": last}, "a": {"last": last}},
    }
    risk = {"mean": 0.5, "variance": 0.1}
    fidelity = {name: {"risk_mean": mean, "risk_variance": mean / 10} for name, mean in (("b", 0.5), ("a", 0.25))}
    run = {"last": last, "risk": {"labels": risk, "bayes": risk}, "fidelity": fidelity}
    found = worth([SimpleNamespace(pair="p", method="m", label="M", runs={0: run}, facts=facts)])
    assert (found.rows[2][1], *found.rows[2][6:]) == ("b + a", "0.50 + 0.25", "+0.0000 + -0.2500")
    assert found.note is not None and "Of several teachers" in found.note


def test_one_test_row_is_refused() -> None:
    with pytest.raises(DistilleryError, match=r"data\.test"):
        open_source("gaussian", {"test": 1})


def test_the_study_is_valid_and_others_are_refused() -> None:
    study = check.load(ROOT / "workflow/studies/why_distillation.yaml")
    rehearse = task_of(study.task).part("rehearsal")
    assert (len(study.pairs), len(study.runs())) == (15, 300) and rehearse(study, True) == []
    wrong = study.model_copy(update={"pairs": {"p": study.pairs["exact-20"].model_copy(update={"student": "bayes"})}})
    assert any("is a formula, which nobody trains" in problem for problem in rehearse(wrong, True))
    digits = study.model_copy(update={"data": study.data.model_validate({"source": "digits"})})
    assert any("the class probabilities of digits are not known" in problem for problem in rehearse(digits, True))


@pytest.mark.slow
def test_a_study_with_a_formula_ends_in_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from small_study import make, write

    monkeypatch.chdir(tmp_path)
    pair = {"student": "linear", "recipe": {"batch_size": 20}}
    write(
        {
            "study": "small",
            "task": "known",
            "data": {"source": "gaussian", "train": 500, "test": 1000},
            "recipe": {
                **{"epochs": 60, "batch_size": 20, "lr": 0.1, "optimizer": {"name": "adam"}, "milestones": []},
                **{"augmentation": {"pad": 0, "flip": False}, "test_every": 60},
            },
            "teachers": {"exact": {"architecture": "bayes"}, "sharp": {"architecture": "bayes_sharp3"}},
            "pairs": {name: pair | {"teacher": name} for name in ("exact", "sharp")},
            "methods": {
                "labels": {"objective": "ce"},
                "kd": {"objective": "kd", "temperature": 1.0, "ce_weight": 0.0, "kd_weight": 1.0},
            },
            "seeds": ["0-2"],
            "tables": {"baseline": "labels"},
        }
    )
    make(tables=True)
    table = (tmp_path / "results/small/table.md").read_text()
    assert "a formula)" in (tmp_path / "results/small/report.html").read_text()
    assert "### What a teacher is worth" in table and "third-party reading" in table
    rows = {
        tuple(c.strip() for c in line.split("|")[1:3]): line.split("|") for line in table.splitlines() if "20 |" in line
    }
    loss = {key: float(cells[5].split("±")[0]) for key, cells in rows.items()}
    assert loss["kd", "exact"] < loss["kd", "sharp"] < loss["labels", "labels"]
    assert (tmp_path / "results/small/figures/why.svg").exists()
