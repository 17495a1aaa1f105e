"""Group gaps and individual unfairness against numbers counted by hand, fairlearn and scikit-learn; trends; Adult."""

from __future__ import annotations

import hashlib
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from scipy import stats
from sklearn.metrics import recall_score

from distillery.data import adult, open_source, prepare
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.evaluation.fairness import group_gaps, individual_unfairness
from distillery.evaluation.trend import crossed, page_trend
from distillery.models import build


def test_binary_gaps_counted_by_hand() -> None:
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    labels = np.array([1, 1, 0, 0, 1, 1, 0, 0])
    predicted = np.array([1, 1, 1, 0, 1, 0, 0, 0])
    # P(1 | 0) = 3/4, P(1 | 1) = 1/4; true positives 1 against 1/2; false positives 1/2 against 0
    assert group_gaps(predicted, labels, groups, 2) == {"demographic_parity": 0.5, "equalised_odds": 0.5}
    assert group_gaps(labels, labels, groups, 2) == {"demographic_parity": 0.0, "equalised_odds": 0.0}


def test_many_classes_take_the_largest_gap() -> None:
    rng = np.random.default_rng(0)
    labels, predicted, groups = (rng.integers(0, n, 600) for n in (5, 5, 3))
    recalls = np.stack([recall_score(labels[groups == g], predicted[groups == g], average=None) for g in range(3)])
    gaps = group_gaps(predicted, labels, groups, 5)
    assert gaps["equalised_odds"] >= (recalls.max(0) - recalls.min(0)).max() - 1e-12
    shares = np.stack([np.bincount(predicted[groups == g], minlength=5) / (groups == g).sum() for g in range(3)])
    assert gaps["demographic_parity"] == pytest.approx((shares.max(0) - shares.min(0)).max())


def test_a_group_without_positives_has_no_true_positive_rate() -> None:
    gaps = group_gaps(np.array([1, 0, 0]), np.array([1, 0, 0]), np.array([0, 0, 1]), 2)
    assert gaps == {"demographic_parity": 0.5, "equalised_odds": 0.0}


@pytest.mark.parametrize("seed", range(5))
def test_binary_gaps_are_those_of_fairlearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 2 + seed, 400) if seed else rng.integers(0, 2, 400)
    labels = rng.integers(0, 2, 400)
    predicted = np.where(rng.random(400) < 0.6 + 0.05 * groups, labels, 1 - labels)
    got = group_gaps(predicted, labels, groups, 2)
    assert got["demographic_parity"] == pytest.approx(
        demographic_parity_difference(labels, predicted, sensitive_features=groups)
    )
    assert got["equalised_odds"] == pytest.approx(
        equalized_odds_difference(labels, predicted, sensitive_features=groups)
    )


def test_individual_unfairness_of_two_samples() -> None:
    samples = np.array([[1.0, 0.0], [1.0, 1.0]])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
    distance = 1 - 1 / np.sqrt(2)
    assert individual_unfairness(probabilities, samples, 100) == pytest.approx(0.3 / distance)
    assert individual_unfairness(probabilities[:1].repeat(2, 0), samples) == 0
    assert individual_unfairness(probabilities, samples[:1].repeat(2, 0)) == 0  # the same sample twice


def test_individual_unfairness_takes_the_same_pairs_and_halves_with_the_change() -> None:
    rng = np.random.default_rng(1)
    samples, p = rng.normal(size=(300, 5)), rng.dirichlet(np.ones(4), 300)
    whole = individual_unfairness(p, samples)
    assert individual_unfairness(0.5 * p + 0.125, samples) == pytest.approx(whole / 2)


def test_individual_unfairness_of_images_takes_little_memory() -> None:
    """All 20,000 pairs of such images at once would take 720 MB."""
    rng = np.random.default_rng(3)
    samples, p = rng.normal(size=(1000, 3000)).astype(np.float32), rng.dirichlet(np.ones(4), 1000)
    tracemalloc.start()
    found = individual_unfairness(p, samples)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found > 0 and most < 60e6


def test_page_trend_is_scipys_in_both_directions() -> None:
    rng = np.random.default_rng(2)
    rising = rng.normal(size=(5, 7)) + np.arange(7)
    found = page_trend(rising.tolist())
    assert found.p_rising == stats.page_trend_test(rising).pvalue < 1e-3 < 0.9 < found.p_falling
    assert found.p == 2 * found.p_rising
    assert found.slope == pytest.approx(np.mean([np.polyfit(np.arange(7), row, 1)[0] for row in rising]))
    # two conditions exchanged at random: no direction has an advantage
    ps = [page_trend(rng.normal(size=(4, 5)).tolist()).p for _ in range(40)]
    assert 0.2 < np.mean(ps) < 0.9


def test_equal_means_are_ties_whatever_their_last_bits() -> None:
    sums = np.array([[0.1 + 0.2, 0.3, 0.5], [0.3, 0.1 + 0.2, 0.5], [0.1 + 0.2, 0.3, 0.5]])
    assert page_trend(sums.tolist()).p_rising == stats.page_trend_test(sums.round(3)).pvalue


def test_seeds_that_all_teachers_share_make_no_trend() -> None:
    """What five seeds have in common shows in the block of every teacher: such blocks alone are no repetition."""
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=(1, 5, 7)) + 0.3 * rng.normal(size=(5, 5, 7)) for _ in range(200)]
    alone = np.mean([page_trend(of.mean(axis=1).tolist()).p < 0.05 for of in draws])
    assert np.mean([crossed(of.tolist()).p < 0.05 for of in draws]) < 0.08 < 0.25 < alone
    rising = draws[0] + np.arange(7)
    both = [page_trend(rising.mean(axis=axis).tolist()) for axis in (0, 1)]
    assert crossed(rising.tolist()).p == max(t.p for t in both) < 1e-3
    assert crossed(rising[:, :1].tolist()) == page_trend(rising[:, 0].tolist())  # one seed: teachers are all there is


LINE = "{age}, {work}, 1, HS-grad, {years}, Divorced, Sales, Wife, {race}, {sex}, {gain}, 0, 40, {land}, {label}"


def census(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zip of two small files in the format of Adult, known by their hashes in place of the released ones."""
    rng = np.random.default_rng(0)
    content = {}
    for name, n, dot in (("adult.data", 60, ""), ("adult.test", 30, ".")):
        lines = [] if not dot else ["|1x3 Cross validator"]
        for i in range(n):
            rich = int(rng.integers(0, 2))
            values = {
                "age": 20 + i,
                "work": ("Private", "?")[i % 2],
                "years": 1 + i % 16,
                "land": ("Cuba", "Peru")[i % 2],
            }
            values |= {"sex": ("Female", "Male")[i % 3 == 0], "race": ("Black", "White")[i % 2]}
            lines.append(LINE.format(**values, gain=(0, 99999)[rich], label=adult.NAMES[rich] + dot))
        content[name] = "\n".join(lines) + "\n"
    path = folder / "adult.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    hashes = {n: hashlib.sha256(text.encode()).hexdigest() for n, text in content.items()}
    monkeypatch.setattr(adult, "SHA256", {s: (n, hashes[n]) for s, n in zip(("train", "test"), hashes, strict=True)})
    sizes = {"workclass": 2, "marital-status": 1, "occupation": 1, "relationship": 1, "race": 2, "sex": 2}
    columns = {name: (adult.CATEGORIES[name][0], size) for name, size in (sizes | {"native-country": 2}).items()}
    monkeypatch.setattr(adult, "CATEGORIES", columns)
    monkeypatch.setattr(adult, "COUNTS", {"train": 60, "test": 30})
    monkeypatch.setattr(adult, "QUANTITIES", {k: v for k, v in adult.QUANTITIES.items() if v not in (11, 12)})
    return path


def test_adult_is_rows_with_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = census(tmp_path, monkeypatch)
    facts = prepare("adult", {"path": str(path)}, tmp_path / "arrays.safetensors")
    assert facts["groups"] == {"of": "sex", "names": ["Female", "Male"]}
    data = Dataset.load(tmp_path / "arrays.safetensors", verify=True)
    source = open_source("adult", {"path": str(path)})
    shape = source.shape()
    assert shape is not None and (shape.channels, shape.train_images) == (data.channels, len(data.train_labels)) == (
        14,
        60,
    )
    assert data.test_groups is not None and data.test_groups.bincount().tolist() == [20, 10]
    rows = data.normalise(data.train_images)
    assert rows.shape == (60, 14, 1, 1) and rows[:, :3].mean(0).abs().max() < 1e-3
    assert set(rows[:, 3:].unique().tolist()) == {0.0, 1.0}  # flags stay
    gain = data.train_images[:, 2, 0, 0]
    assert gain.eq(255).long().tolist() == data.train_labels.tolist() == sorted(data.train_labels.tolist())
    assert build("mlp1_w8", 2, 14)(rows).logits.shape == (60, 2)
    blind = open_source("adult", {"path": str(path), "blind": True, "group": "race"}).load()
    assert blind.tensors["train_images"].shape == (60, 1, 1, 12) and blind.group_names == ["Black", "White"]


def test_another_adult_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = census(tmp_path, monkeypatch)
    monkeypatch.setitem(adult.SHA256, "test", ("adult.test", "0" * 64))
    with pytest.raises(DistilleryError, match="is not the released one"):
        open_source("adult", {"path": str(path)}).load()
    with pytest.raises(DistilleryError, match=r"name adult\.zip in `data\.path`"):
        open_source("adult", {"path": str(tmp_path / "no.zip")}).load()


def test_a_perceptron_takes_rows_only() -> None:
    with pytest.raises(DistilleryError, match="rows of features, not images of 8x8"):
        build("linear", 3, 1)(torch.zeros(2, 1, 8, 8))
    assert sum(p.numel() for p in build("linear", 3, 5).parameters()) == 18
