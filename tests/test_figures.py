"""Figures: none ends the tables of a study whose runs lack what it draws, and every family of methods is in the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from synthetic_study import Synthetic, params

from distillery.report import table
from distillery.report.figures import captions, curves, draw_all, gaps, temperature, why
from distillery.report.figures.style import apart
from distillery.report.results import Results

KD: dict[str, Any] = {"objective": "kd"}
LS: dict[str, Any] = KD | {"plugins": {"standardise": {}}}
OF_CLASSIFIERS = ("per_class", "predictions", "logits", "reliability", "nll")


@pytest.fixture
def synthetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synthetic:
    monkeypatch.chdir(tmp_path)
    return Synthetic(tmp_path, params())


def measured(made: Synthetic, methods: dict[str, Any], pairs: dict[str, Any] | None = None, **more: Any) -> Results:
    """The results of a study of these methods, run in all its pairs."""
    more |= {"pairs": pairs} if pairs else {}
    made.write_params(params(methods=methods, tables={"baseline": next(iter(methods))}, **more))
    for pair in made.study.pairs:
        for i, method in enumerate(methods):
            made.cell(pair, method, "0-2", [70.0 + i, 70.5 + i, 71.25 + i])
    return made.results


def key(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_study_without_classes_gets_the_figures_that_it_can_have(synthetic: Synthetic, tmp_path: Path) -> None:
    """As of recommenders, whose runs hold none of what is measured of classifiers."""
    found = measured(synthetic, {"ce": {"objective": "ce"}, "kd_2": KD | {"temperature": 2.0}, "kd_5": KD})
    for cell in found:
        for entry in (*cell.runs.values(), *cell.facts["teachers"].values()):
            for name in OF_CLASSIFIERS:
                del entry[name]
    main = table.build(found)
    assert draw_all(found, main, tmp_path) == ["differences", "curves", "temperature"]
    figure = temperature.draw(found, main)
    assert key(figure) == ["kd: test accuracy"]
    assert figure is not None and [axis.get_visible() for axis in figure.axes] == [True, False]  # no axis for nothing


def test_classes_are_counted_in_whole_numbers(synthetic: Synthetic) -> None:
    found = measured(synthetic, {"ce": {"objective": "ce"}, "kd_2": KD | {"temperature": 2.0}, "kd_5": KD})
    main = table.build(found)
    figure = temperature.draw(found, main)
    assert figure is not None
    *_, right = figure.axes
    shown = [tick for tick in right.get_yticks() if right.get_ylim()[0] <= tick <= right.get_ylim()[1]]
    assert right.get_visible() and len(shown) > 1 and all(tick == int(tick) >= 0 for tick in shown)
    assert all("bars: one standard deviation" in captions(main)[name] for name in ("temperature", "cost"))


def test_points_are_no_curves(synthetic: Synthetic) -> None:
    """A run that is tested once, at its end, has one point, and a line through it shows nothing."""
    found = measured(synthetic, {"ce": {"objective": "ce"}, "kd": KD})
    assert curves.draw(found, table.build(found)) is not None
    for cell in found:
        for run in cell.runs.values():
            run["curves"] = {name: values[-1:] for name, values in run["curves"].items()}
    assert curves.draw(found, table.build(found)) is None


def test_lines_beyond_the_colours_have_other_markers() -> None:
    looks = apart(str(i) for i in range(20))
    assert len({tuple(look.values()) for look in looks.values()}) == 20
    assert looks["0"]["color"] == looks["7"]["color"]


METHODS = {
    "kd_1": KD | {"temperature": 1.0},
    "kd_4": KD | {"temperature": 4.0},
    "ls_1": LS | {"temperature": 1.0},
    "ls_4": LS | {"temperature": 4.0},
}


def test_families_of_one_objective_are_told_apart(synthetic: Synthetic) -> None:
    found = measured(synthetic, METHODS)
    main = table.build(found)
    names = ["kd", "kd + standardise"]
    families = [(name, {t: [c.method for c in cells] for t, cells in by.items()}) for name, by in gaps.families(found)]
    assert families == [(names[0], {1.0: ["kd_1"], 4.0: ["kd_4"]}), (names[1], {1.0: ["ls_1"], 4.0: ["ls_4"]})]
    assert [label for label in key(gaps.draw(found, main)) if "students" in label] == [f"{n}: students" for n in names]
    assert [label for label in key(temperature.draw(found, main)) if "accuracy" in label] == [
        f"{name}: test accuracy" for name in names
    ]


def test_families_of_the_same_parts_are_called_by_their_first_method(synthetic: Synthetic) -> None:
    heavy = {
        f"heavy_{t}": KD | {"kd_weight": 9.0, "temperature": float(t), "label": f"KD x 9, T = {t}"} for t in (1, 4)
    }
    found = measured(synthetic, METHODS | heavy)
    names = ["kd_1", "kd + standardise", "KD x 9, T = 1"]
    assert [name for name, _ in gaps.families(found)] == names
    assert [name for name, _ in temperature.labelled(found)["a-b"]] == names


def test_families_of_two_recipes_are_told_apart_by_their_pair(synthetic: Synthetic) -> None:
    """The figure of gaps has all pairs in one panel; that of temperatures has a panel for each."""
    pair = {"teacher": "resnet20_w8", "student": "resnet8_w2"}
    pairs = {"a-b": pair, "a-c": pair | {"recipe": {"lr": 0.01}}}
    found = measured(synthetic, {"kd_1": METHODS["kd_1"], "kd_4": METHODS["kd_4"]}, pairs)
    assert [name for name, _ in gaps.families(found)] == ["kd_1, a-b", "kd_1, a-c"]
    assert {name for of in temperature.labelled(found).values() for name, _ in of} == {"kd"}


def test_each_of_several_teachers_is_shown_in_why(synthetic: Synthetic) -> None:
    pairs = {
        "one": {"teacher": "resnet20_w8", "student": "resnet8_w2"},
        "two": {"teacher": ["resnet20_w8", "resnet8_w4"], "student": "resnet8_w2"},
    }
    teachers = {name: {"architecture": name} for name in ("resnet20_w8", "resnet8_w4")}
    found = measured(synthetic, {"ensemble": {"objective": "ensemble"}}, pairs, teachers=teachers)
    for cell in found:
        for run in cell.runs.values():
            run["last"] |= {"excess": 0.1}
            run["risk"] = {"labels": {"variance": 1.0}}
            run["fidelity"] = {name: {"risk_variance": 0.5} for name in cell.facts["teachers"]}
        for teacher in cell.facts["teachers"].values():
            teacher["last"] |= {"distance": 0.1}
    figure = why.draw(found, table.build(found))
    assert figure is not None
    assert [len(axis.lines) for axis in figure.axes] == [2, 3, 3, 3]
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes[1:]] == [["resnet20_w8", "resnet8_w4"]] * 3


def test_every_method_and_student_has_its_series_in_why(synthetic: Synthetic) -> None:
    """Students alone train the same in every pair, and count once; the others hide none of each other."""
    pair = {"teacher": "resnet20_w8", "student": "resnet8_w2"}
    pairs = {"few": pair | {"recipe": {"batch_size": 16}}, "more": pair, "slow": pair | {"recipe": {"lr": 0.01}}}
    found = measured(synthetic, {"ce": {"objective": "ce"}, "kd_1": METHODS["kd_1"], "ls_1": METHODS["ls_1"]}, pairs)
    for cell in found:
        cell.facts["cost"] = cell.facts["cost"] | ({"teacher_outputs": "none"} if cell.method == "ce" else {})
        for run in cell.runs.values():
            run["last"] |= {"excess": 0.1}
            run["risk"] = {"labels": {"variance": 1.0}}
            run["fidelity"] = {"resnet20_w8": {"risk_variance": 0.5}}
        for teacher in cell.facts["teachers"].values():
            teacher["last"] |= {"distance": 0.1}
    taught = "teacher resnet20_w8"
    series = {label: {size: cell.pair for size, cell in by.items()} for label, _, by in why.series(found)}
    assert series == {
        "labels, ce, few": {16: "few", 32: "more"},
        "labels, ce, slow": {32: "slow"},
        f"{taught}, kd_1, few": {16: "few", 32: "more"},
        f"{taught}, kd_1, slow": {32: "slow"},
        f"{taught}, ls_1, few": {16: "few", 32: "more"},
        f"{taught}, ls_1, slow": {32: "slow"},
    }
    figure = why.draw(found, table.build(found))
    assert key(figure) == list(series)
    assert figure is not None and len({(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}) == 6
    for name in list(found.cells):
        if name[0] == "slow":
            del found.cells[name]
    assert [label for label, *_ in why.series(found)] == ["labels", f"{taught}, kd_1", f"{taught}, ls_1"]
