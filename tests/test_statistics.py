"""Statistics against scipy, statsmodels and cases worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from distillery.evaluation import statistics as our
from distillery.evaluation.class_change import class_change, disagreement, disagreement_rate
from distillery.report.classwise import against_teacher


def test_summary_agrees_with_scipy() -> None:
    values = [73.1, 73.4, 72.9, 73.3, 73.6]
    found = our.summarise(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (found.mean, found.n) == (pytest.approx(73.26), 5)
    assert found.sd == pytest.approx(stats.tstd(values))
    assert found.mean - found.ci95 == pytest.approx(low)
    assert found.mean + found.ci95 == pytest.approx(high)


def test_summary_of_few_runs_claims_no_spread() -> None:
    assert our.summarise([]) == our.Summary(None, None, 0, None)
    assert our.summarise([70.0]) == our.Summary(70.0, None, 1, None)
    assert our.summarise([70.0, 70.0, 70.0]) == our.Summary(70.0, 0.0, 3, None)  # nor an interval of no width
    apart = our.paired({0: 70.3, 1: 71.3, 2: 70.1}, {0: 70.1, 1: 71.1, 2: 69.9})  # by 0.2, but for the last bits
    assert (apart.summary.mean, apart.summary.ci95, apart.p) == (pytest.approx(0.2), None, None)


def test_the_paired_difference_agrees_with_scipy_and_uses_common_seeds_only() -> None:
    ours = {0: 71.2, 1: 71.9, 2: 71.4, 3: 72.3, 9: 99.0}
    theirs = {3: 71.7, 0: 70.6, 1: 71.5, 2: 71.3}
    found = our.paired(ours, theirs)
    expected = stats.ttest_rel([71.2, 71.9, 71.4, 72.3], [70.6, 71.5, 71.3, 71.7])
    assert found.p == pytest.approx(expected.pvalue)
    assert found.summary.n == 4
    assert found.summary.mean == pytest.approx(0.425)
    assert found.summary.ci95 == pytest.approx(expected.confidence_interval().high - 0.425)


@pytest.mark.parametrize(
    "ours",
    [{}, {0: 72.0}, {0: 72.0, 1: 73.0}, {0: 70.5, 1: 71.5, 2: 72.5}],
    ids=["no common seed", "one", "two", "three equal differences"],
)
def test_what_cannot_be_tested_has_no_p_value(ours: dict[int, float]) -> None:
    assert our.paired(ours, {0: 70.0, 1: 71.0, 2: 72.0}).p is None


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_holm_agrees_with_statsmodels(count: int) -> None:
    p_values = (np.random.default_rng(count).random(count) ** 4).round(2).tolist()  # small ones, and ties
    assert our.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist(), abs=1e-12)


def test_holm_of_nothing() -> None:
    assert our.holm([]) == []


@pytest.mark.parametrize("effect", [0.1, 0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("power", [0.8, 0.95])
def test_the_number_of_seeds_agrees_with_statsmodels(effect: float, power: float) -> None:
    found = our.seeds_needed(effect * 0.3, 0.3, power)
    assert found is not None
    assert TTestPower().power(effect, found, 0.05, alternative="two-sided") >= power
    assert TTestPower().power(effect, found - 1, 0.05, alternative="two-sided") < power


def test_the_number_of_seeds_at_the_edges() -> None:
    assert our.seeds_needed(-0.3, 0.3) == our.seeds_needed(0.3, 0.3) == 10
    assert our.seeds_needed(0.0, 0.3) is None
    assert our.seeds_needed(0.5, 0.0) == 2
    assert our.seeds_needed(6.0, 0.3) == 2  # 0.97 by a simulation of 10 million pairs
    assert our.seeds_needed(0.001, 10.0) is None  # more than anybody would train


def test_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    assert our.interquartile_mean([[1, 2, 3, 4], [5, 6, 7, 100]]) == pytest.approx(np.mean([3, 4, 5, 6]))
    assert our.interquartile_mean([[1.0], [2.0], [4.0]]) == pytest.approx(7 / 3)  # too few to cut: scipy's trim_mean


def test_probability_of_improvement_is_the_mean_mann_whitney_statistic() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(0.3, 1, (4, 5)), generator.normal(0, 1, (4, 3))
    each = [stats.mannwhitneyu(x, y, alternative="greater").statistic / 15 for x, y in zip(ours, theirs, strict=True)]
    assert our.probability_of_improvement(ours, theirs) == pytest.approx(np.mean(each))
    assert our.probability_of_improvement([[1, 1]], [[1, 1]]) == 0.5
    assert our.probability_of_improvement([[2, 3], [0, 0]], [[1, 1], [0, 1]]) == pytest.approx((1 + 0.25) / 2)


def test_the_bootstrap_interval_covers_and_repeats() -> None:
    scores = np.random.default_rng(1).normal(70, 1, (6, 5)).tolist()
    low, high = our.bootstrap(our.interquartile_mean, scores, repeats=500)
    assert low < our.interquartile_mean(scores) < high
    assert (low, high) == our.bootstrap(our.interquartile_mean, scores, repeats=500)
    same = our.bootstrap(our.probability_of_improvement, [[1.0, 1.0]], [[0.0, 0.0]], repeats=50)
    assert same == (1.0, 1.0)


def test_the_same_runs_in_several_pairs_are_drawn_once() -> None:
    """Five pairs that share their five runs know no more than one: drawn apart they would count as 25."""
    runs, other = np.random.default_rng(1).normal(70, 5, (2, 5)).tolist()
    assert our.bootstrap(our.interquartile_mean, [runs] * 5) == pytest.approx(
        our.bootstrap(lambda drawn: our.interquartile_mean(drawn * 5), [runs])
    )
    shared, apart = (
        our.bootstrap(our.probability_of_improvement, [other] * 5, theirs)
        for theirs in ([runs] * 5, [[*runs[i:], *runs[:i]] for i in range(5)])
    )
    assert shared[0] < apart[0] and shared[1] > apart[1]


def test_what_a_seed_has_in_common_in_all_pairs_widens_the_interval() -> None:
    """Five pairs of the same five seeds, each of which does the same in all pairs, know little more than one pair."""
    generator = np.random.default_rng(2)
    seeds = generator.normal(70, 1, 5)
    ours, theirs = ((shift + seeds + generator.normal(0, 0.01, (5, 5))).tolist() for shift in (0.5, 0.0))
    measured = ((our.interquartile_mean, [ours], 1.5), (our.probability_of_improvement, [ours, theirs], 1.1))
    for statistic, samples, wider in measured:
        apart, alike = (our.bootstrap(statistic, *samples, aligned=aligned) for aligned in (False, True))
        assert alike[0] <= apart[0] and alike[1] >= apart[1]
        assert alike[1] - alike[0] > wider * (apart[1] - apart[0])


def models(rows: int, classes: int, seed: int, spread: float = 1.0) -> np.ndarray:
    return 70 + spread * np.random.default_rng(seed).normal(size=(rows, classes))


def test_class_change_agrees_with_scipys_welch_test() -> None:
    after, before, images = models(5, 20, 0), models(4, 20, 1), [100] * 20
    after[:, 3] += 8
    found = class_change(after.tolist(), before.tolist(), images)
    assert found is not None
    x, y = (m - m.mean(axis=1, keepdims=True) for m in (after, before))
    expected = stats.ttest_ind(x, y, axis=0, equal_var=False).pvalue
    assert found.p == pytest.approx(expected)
    assert found.significant == (expected < 0.05).sum()
    assert found.significant_holm == multipletests(expected, method="holm")[0].sum() == 1
    assert found.change.argmax() == 3


def test_a_model_that_gains_everywhere_alike_changes_no_class() -> None:
    before = models(5, 30, 2)
    found = class_change((before + 9 + np.arange(5)[:, None]).tolist(), before.tolist(), [10] * 30)
    assert found is not None
    assert found.change == pytest.approx(0, abs=1e-9)
    assert found.significant == 0


def test_class_change_against_one_fixed_teacher_is_a_one_sample_test() -> None:
    after, teacher = models(6, 10, 3), models(1, 10, 4)
    found = class_change(after.tolist(), teacher.tolist(), [50] * 10)
    assert found is not None
    x, y = (m - m.mean(axis=1, keepdims=True) for m in (after, teacher))
    assert found.p == pytest.approx([stats.ttest_1samp(x[:, c], y[0, c]).pvalue for c in range(10)])


def cell_of(students: np.ndarray, teachers: np.ndarray, **trained: Any) -> Any:
    """A cell as the report reads it, of class accuracies only; `trained` replaces what is said of its teachers."""
    classes = students.shape[1]
    known = [{"seed": i, "recipe": {"epochs": 240}, "sha256": f"{i:064}"} | trained for i in range(len(teachers))]
    facts = {
        "teachers": {
            str(i): {"architecture": "resnet20", "trained": how, "per_class": row}
            for i, (how, row) in enumerate(zip(known, teachers, strict=True))
        },
        "labels": np.arange(classes),
        "data": {"class_names": [str(c) for c in range(classes)]},
    }
    return SimpleNamespace(facts=facts, runs={i: {"per_class": row} for i, row in enumerate(students)})


@pytest.mark.parametrize("seeds", [3, 10])
def test_classes_count_at_the_level_where_nothing_differs_and_the_teacher_was_repeated(seeds: int) -> None:
    """No class differs, deviation 2.5 points, 100 classes: Welch's test errs in 5 % of the classes or less."""
    generator = np.random.default_rng(0)

    def rate(teachers: int) -> float:
        sizes = ((seeds, 100), (teachers, 100))
        found = [against_teacher(cell_of(*(generator.normal(70, 2.5, size) for size in sizes))) for _ in range(40)]
        return float(np.mean([change.significant for change in found if change is not None]))

    assert 2 < rate(seeds) < 6.5
    assert rate(1) > 12  # which is why this count is not called #TC


@pytest.mark.parametrize("trained", [{"recipe": None, "fetched": {"url": "a mirror"}}, {"seed": 0}])
def test_teachers_that_no_recipe_trained_with_other_seeds_are_no_repeated_trainings(trained: dict[str, Any]) -> None:
    """Fetched ones and students of other studies have no recipe; one training may have several names in a study."""
    students, teachers = models(5, 10, 3), models(3, 10, 4)
    found = against_teacher(cell_of(students, teachers, **trained))
    repeated = against_teacher(cell_of(students, teachers))
    alone = class_change(students.tolist(), teachers[:1].tolist(), [1] * 10)
    assert found is not None and repeated is not None and alone is not None
    assert found.p == pytest.approx(alone.p)
    assert repeated.p != pytest.approx(alone.p)


def test_overall_accuracy_weighs_classes_by_their_images_and_empty_classes_are_left_out() -> None:
    after = [[80.0, 50.0, None], [82.0, 50.0, None], [81.0, 53.0, None]]
    before = [[70.0, 50.0, None], [72.0, 51.0, None], [71.0, 50.0, None]]
    found = class_change(after, before, [90, 10, 0])
    assert found is not None
    gain = 0.9 * 10 + 0.1 * (51 - 151 / 3)
    assert found.change[0] == pytest.approx(10 - gain)
    assert np.isnan(found.change[2])
    assert np.isnan(found.p[2])


def test_too_few_models_are_not_tested() -> None:
    two, three = [[70.0, 60.0]] * 2, [[70.0, 60.0]] * 3
    assert class_change(two, three, [1, 1]) is None
    assert class_change(three, two, [1, 1]) is None
    assert class_change(three, [], [1, 1]) is None
    same = class_change(three, three, [1, 1])  # no spread at all
    assert same is not None
    assert same.significant == 0


def test_disagreement_counts_every_image() -> None:
    a, b = np.array([0, 1, 2, 2, 1]), np.array([0, 2, 2, 1, 1])
    matrix = disagreement(a, b, 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    assert disagreement_rate(matrix) == pytest.approx(40.0)
    assert disagreement_rate(disagreement(a, a, 3)) == 0.0
