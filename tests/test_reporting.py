"""From metrics to tables: nothing is lost, nothing is claimed that was not found, and the same goes in as comes out."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from rich.console import Console
from synthetic_study import Synthetic, params

from distillery.cli import app
from distillery.pipeline import check
from distillery.pipeline.current import fault_of_tables
from distillery.pipeline.layout import Layout
from distillery.pipeline.work import Work
from distillery.records.io import DistilleryError
from distillery.report import budget, comma_separated, dated, latex, markdown, story, table
from distillery.report.figures import FIGURES, captions
from distillery.report.figures.style import title_of
from distillery.report.sections import comparison, sections
from distillery.report.sections.section import Section
from distillery.report.terminal import compare, show
from distillery.report.text import MINUS, p_text
from distillery.report.verdicts import explained
from distillery.stages import tables
from distillery.task import Measure
from distillery.tasks.classification import Classification


@pytest.fixture
def synthetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synthetic:
    """One pair, three methods, three seeds, all there; KD_10 is better than KD on every seed."""
    monkeypatch.chdir(tmp_path)
    made = Synthetic(tmp_path, params())
    made.cell("a-b", "kd", "0-2", [80.0, 81.0, 82.0])
    made.cell("a-b", "ce", "0-2", [79.0, 82.0, 80.0])
    made.cell("a-b", "kd_10", "0-2", [85.0, 86.0, 86.75])
    return made


def main_table(made: Synthetic) -> table.Table:
    return table.build(made.results)


def report(made: Synthetic) -> list[Section]:
    found = made.results
    return sections(found, table.build(found))


def markdown_of(made: Synthetic) -> str:
    return markdown.markdown(report(made), {})


def latex_of(made: Synthetic) -> str:
    return latex.latex(report(made), made.study.study)


def entry(made: Synthetic, method: str, pair: str = "a-b") -> table.Entry:
    return next(row for row in main_table(made).rows if row.name == method).entries[pair]


def test_the_numbers_of_a_cell(synthetic: Synthetic) -> None:
    found = entry(synthetic, "kd_10")
    assert found.mean == pytest.approx(257.75 / 3)
    assert found.values == (85.0, 86.0, 86.75)
    assert found.sd == pytest.approx(0.87797, abs=1e-5)
    assert (found.n, found.expected) == (3, 3)
    assert found.difference == pytest.approx((5 + 5 + 4.75) / 3)
    assert found.mark == "better"
    assert found.p is not None
    assert found.p < 0.01
    assert entry(synthetic, "ce").mark is None
    assert entry(synthetic, "kd").difference is None  # the baseline itself
    assert entry(synthetic, "teacher").mean == 90.0


def test_best_is_another_convention_and_says_so(synthetic: Synthetic) -> None:
    synthetic.write_params(synthetic.content | {"tables": {"convention": "best", "baseline": "kd"}})
    assert entry(synthetic, "kd").mean == pytest.approx(81.25)
    assert entry(synthetic, "teacher").mean == 90.5
    assert "best on the test set (optimistic" in main_table(synthetic).notes[0]


def test_the_number_of_a_teacher_says_what_it_is(synthetic: Synthetic) -> None:
    content = synthetic.content | {"tables": {"convention": "best", "baseline": "kd"}}
    content["teachers"] = content["teachers"] | {"other": {"architecture": "resnet20_w8", "seed": 1}}
    content["pairs"] = {"a-b": {"teacher": ["resnet20_w8", "other"], "student": "resnet8_w2"}}
    content["methods"] = {"kd": {"objective": "ensemble"}}
    synthetic.write_params(content)
    synthetic.cell("a-b", "kd", "0-2", [80.0, 81.0, 82.0])
    found = synthetic.results
    assert "of its weights" not in markdown_of(synthetic)
    assert "Of several teachers: mean ± standard deviation over them." in comparison.caption(found, table.build(found))
    for cell in found:
        cell.facts["teachers"]["other"].pop("test_best")
    assert any("its number is that of its weights" in note for note in table.build(found).notes)


def test_rows_are_teacher_then_student_alone_then_methods(synthetic: Synthetic) -> None:
    assert [row.name for row in main_table(synthetic).rows] == ["teacher", "ce", "kd", "kd_10"]


def test_missing_runs_show_with_n_and_are_listed(synthetic: Synthetic) -> None:
    Layout("digits").metrics("a-b", "ce", "0-2").unlink()
    main = main_table(synthetic)
    assert entry(synthetic, "ce").mean is None
    assert main.missing == ("a-b, ce, seeds 0 to 2: no result yet",)
    text = markdown_of(synthetic)
    assert re.search(r"\| student alone +\| +— \(0 of 3\) \|", text)
    assert "Missing runs:\n\n- a-b, ce, seeds 0 to 2: no result yet" in text
    assert "--- (0 of 3)" in latex_of(synthetic)


def without_its_last_run(path: Path) -> None:
    record = {key: value for key, value in json.loads(path.read_text()).items() if key != "seal"}
    path.write_text(json.dumps(record | {"runs": record["runs"][:-1]}))


def test_a_seed_missing_within_a_file_is_missed(synthetic: Synthetic) -> None:
    path = Layout("digits").metrics("a-b", "kd_10", "0-2")
    without_its_last_run(path)
    found = entry(synthetic, "kd_10")
    assert (found.n, found.expected) == (2, 3)
    assert found.mark is None  # two runs are never tested
    assert main_table(synthetic).missing == (f"a-b, kd_10, seed 2: {path} holds no seed 2",)
    assert "85.50 ± 0.71 (2 of 3)" in markdown_of(synthetic)


def test_results_of_other_parameters_do_not_count(synthetic: Synthetic) -> None:
    content = params()
    content["methods"]["kd_10"]["temperature"] = 11.0
    synthetic.write_params(content)
    main = main_table(synthetic)
    assert len(main.missing) == 1
    assert (
        "kd_10, seeds 0 to 2: out of date (methods.kd_10.temperature changed): run the study again" in main.missing[0]
    )
    assert entry(synthetic, "kd").n == 3


def test_a_damaged_file_is_a_missing_run_not_a_crash(synthetic: Synthetic) -> None:
    Layout("digits").metrics("a-b", "ce", "0-2").write_text('{"runs": [')
    assert "0-2.json is damaged or cut short" in main_table(synthetic).missing[0]


def test_files_that_are_not_of_the_study_are_ignored(synthetic: Synthetic) -> None:
    before = markdown_of(synthetic), comma_separated.cells(main_table(synthetic))
    layout = Layout("digits")
    kept = layout.metrics("a-b", "kd", "0-2")
    for stray in (
        layout.metrics("a-b", "other", "0-2"),
        layout.metrics("x-y", "kd", "0"),
        layout.metrics("a-b", "kd", "7"),
    ):
        stray.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kept, stray)
    assert (markdown_of(synthetic), comma_separated.cells(main_table(synthetic))) == before


def test_no_arrow_and_no_bold_with_two_seeds_however_large_the_difference(synthetic: Synthetic) -> None:
    synthetic.write_params(params(seeds=["0-1"]))
    synthetic.cell("a-b", "kd", "0-1", [10.0, 11.0])
    synthetic.cell("a-b", "ce", "0-1", [10.0, 10.5])
    synthetic.cell("a-b", "kd_10", "0-1", [90.0, 92.0])
    main = main_table(synthetic)
    text = markdown_of(synthetic) + latex_of(synthetic)
    cells = [e for row in main.rows for e in row.entries.values()]
    assert not any(e.best or e.mark for e in cells)
    assert "**" not in text
    assert "\\bfseries" not in text
    assert "2 of 2 could not be tested" in text


def test_bold_needs_every_other_method_beaten(synthetic: Synthetic) -> None:
    synthetic.cell("a-b", "ce", "0-2", [79.0, 88.0, 80.0])  # worse on average, but not surely
    assert entry(synthetic, "kd_10").mark == "better"
    assert not entry(synthetic, "kd_10").best
    synthetic.write_params(params(seeds=["0-5"]))
    synthetic.cell("a-b", "kd", "0-5", [80.0, 81.0, 82.0, 80.5, 81.5, 81.0])
    synthetic.cell("a-b", "ce", "0-5", [79.0, 80.5, 80.0, 79.5, 80.0, 79.0])
    synthetic.cell("a-b", "kd_10", "0-5", [85.0, 86.0, 86.75, 85.5, 86.0, 86.5])
    assert entry(synthetic, "kd_10").best
    assert not entry(synthetic, "kd").best
    assert "**85.96 ± 0.64** (6) ▲" in markdown_of(synthetic)
    assert "\\bfseries 85.96 & {\\scriptsize$\\pm$0.64}$^{\\uparrow}$" in latex_of(synthetic)


def test_what_was_not_tested_is_not_explained(synthetic: Synthetic) -> None:
    caption = comparison.caption(synthetic.results, main_table(synthetic))
    assert "over 3 seeds, the last" in caption and "epoch. ▲: significantly better than KD (paired" in caption
    assert "Bold: " in caption and main_table(synthetic).notes[-1].startswith("Bold: ")
    synthetic.cell("a-b", "ce", "0-2", [79.0, 88.0, 80.0])
    synthetic.cell("a-b", "kd_10", "0-2", [80.25, 81.5, 80.0])
    caption, notes = comparison.caption(synthetic.results, main_table(synthetic)), " ".join(main_table(synthetic).notes)
    assert all("None is significantly better or worse than KD (paired" in text for text in (caption, notes))
    assert not any(word in caption + notes for word in ("▲", "▼", "Bold"))
    synthetic.write_params(params(seeds=[0]))
    for method in ("kd", "ce", "kd_10"):
        synthetic.cell("a-b", method, "0", [80.0])
    caption, notes = comparison.caption(synthetic.results, main_table(synthetic)), " ".join(main_table(synthetic).notes)
    assert "A single run, the last epoch." in caption and "seeds" not in caption
    assert not any(word in caption + notes for word in ("significantly", "▲", "Bold", "±"))


def test_a_single_seed_has_no_intervals_anywhere(synthetic: Synthetic) -> None:
    """Headings and captions of figures are about what is there, as the notes are."""
    said = captions(main_table(synthetic))
    assert "with 95 % intervals" in said["differences"] and "▲: significantly better than the" in said["differences"]
    assert "(95 % interval, corrected p)" in markdown_of(synthetic) and "standard deviation" in said["curves"]
    pair = {"teacher": "resnet20_w8", "student": "resnet8_w2"}
    synthetic.write_params(params(seeds=[0], pairs={"a-b": pair, "a-c": pair}))
    for name, method in product(synthetic.study.pairs, synthetic.study.methods):
        synthetic.cell(name, method, "0", [80.0])
    synthetic.tables()
    whole = Layout("digits").result_files()["markdown"].read_text(encoding="utf-8")
    assert "figures/improvement" in whole and "figures/differences" in whole and "### Across pairs" in whole
    whole = whole.replace("standard deviation of an image's logits", "")
    assert [w for w in ("95 %", "interval)", "corrected", "▲", "±", "standard dev", "mean over") if w in whole] == []


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        (["better", None, "worse"], "▲/▼: significantly better/worse than KD"),
        (["worse", None], "▼: significantly worse than KD"),
        ([None], "None is significantly better or worse than KD"),
    ],
)
def test_arrows_are_explained_that_are_there(marks: list[str | None], said: str) -> None:
    assert explained(marks, "KD") == said


def test_a_caption_says_how_many_runs_the_usual_entry_has(synthetic: Synthetic) -> None:
    """In LaTeX such an entry does not."""
    Layout("digits").metrics("a-b", "ce", "0-2").unlink()
    assert "over 3 seeds, the last epoch" in comparison.caption(synthetic.results, main_table(synthetic))
    path = Layout("digits").metrics("a-b", "kd_10", "0-2")
    without_its_last_run(path)
    caption = comparison.caption(synthetic.results, main_table(synthetic))
    assert "over 3 seeds where an entry says no other number, the last epoch" in caption


def test_a_teacher_is_called_by_its_architecture_if_that_tells_it_apart(synthetic: Synthetic) -> None:
    teachers = {"big": "resnet56", "t0": "resnet20_w8", "t1": "resnet20_w8"}
    pairs = {name: {"teacher": name, "student": "resnet8_w2"} for name in teachers}
    pairs |= {"both": {"teacher": ["t0", "t1"], "student": "resnet8_w2"}, "again": pairs["big"]}
    content = params(pairs=pairs, teachers={name: {"architecture": network} for name, network in teachers.items()})
    content["methods"] = {"ensemble": {"objective": "ensemble"}, "ce": {"objective": "ce"}}
    synthetic.write_params(content | {"tables": {}})
    for pair in ("big", "t0"):
        synthetic.cell(pair, "ce", "0-2", [79.0, 82.0, 80.0])
    main = main_table(synthetic)
    assert [head.text.split("\n") for head in comparison.main(main).header[1:]] == [
        ["resnet56", "→ resnet8_w2 (big)"],
        ["t0", "→ resnet8_w2"],
        ["t1", "→ resnet8_w2"],
        ["t0 + t1", "→ resnet8_w2"],
        ["resnet56", "→ resnet8_w2 (again)"],
    ]
    assert title_of(main, "big") == "resnet56 → resnet8_w2 (big)"
    assert "Teachers t0 and t1: resnet20_w8." in comparison.caption(synthetic.results, main)
    told = dict(story.trained(synthetic.results, main))["Teachers"]
    assert told == "resnet56 (90.00 %, trained here) and t0: resnet20_w8 (90.00 %, trained here)"


def test_a_teacher_that_has_no_such_measure_misses_no_run(synthetic: Synthetic) -> None:
    found = synthetic.results
    for cell in found:
        for teacher in cell.facts["teachers"].values():
            teacher["last"] = {}
    assert comparison.main(table.build(found)).rows[0].values[1].plain == "—"


def test_how_many_seeds_a_difference_needs(synthetic: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of half a point unless the study says otherwise; of no number in another unit; never fewer than are tested."""
    assert any(note.startswith("Detecting a 0.5-point difference") for note in main_table(synthetic).notes)
    synthetic.write_params(params(tables={"baseline": "kd", "resolve": 40.0}))
    told = next(note for note in main_table(synthetic).notes if note.startswith("Detecting"))
    assert "a 40-point difference from KD with 80 % power needs 3 seeds" in told and "3 to 3" in told
    synthetic.write_params(params())
    monkeypatch.setattr(Classification, "measures", (Measure("top1", "a distance", higher_is_better=False),))
    main = main_table(synthetic)
    assert not any(note.startswith("Detecting") for note in main.notes)
    assert entry(synthetic, "kd_10").seeds_needed is None
    assert "0.05, lower is better)" in comparison.caption(synthetic.results, main)


def test_a_p_value_stays_on_its_side() -> None:
    texts = {0.0496: "0.0496", 0.04999: "0.04999", 0.05: "0.050", 0.0504: "0.050", 0.2: "0.200", 4e-5: f"4e{MINUS}05"}
    assert {p: p_text(p) for p in texts} == {p: f"p = {text}" for p, text in texts.items()}
    assert p_text(0.0) == f"p < 1e{MINUS}300"


def test_holm_corrects_over_the_whole_table(synthetic: Synthetic) -> None:
    alone = entry(synthetic, "kd_10").p
    pairs = {n: {"teacher": "resnet20_w8", "student": "resnet8_w2"} for n in ("a-b", "a-c")}
    synthetic.write_params(params(pairs=pairs))
    for method, values in {"kd": [80.0, 81.0, 82.0], "ce": [79.0, 82.0, 80.0], "kd_10": [80.25, 81.5, 80.0]}.items():
        synthetic.cell("a-c", method, "0-2", values)
    found = entry(synthetic, "kd_10").p
    assert alone is not None
    assert found == pytest.approx(2 * alone)  # the smallest of 4 p values instead of the smallest of 2


def test_another_budget_gets_a_footnote_from_the_run_records(synthetic: Synthetic) -> None:
    content = params()
    content["methods"]["kd_10"]["recipe"] = {"epochs": 60}
    synthetic.write_params(content)
    synthetic.cell("a-b", "kd_10", "0-2", [85.0, 86.0, 86.75])
    main = main_table(synthetic)
    assert main.footnotes == ("a: trained with another budget: epochs 60 instead of 30",)
    assert [row.footnote for row in main.rows] == ["", "", "", "a"]
    assert "KD\\_10 & more<sup>a</sup>" in markdown_of(synthetic)
    assert "KD\\_10 \\& more\\textsuperscript{a}" in latex_of(synthetic)


def test_a_budget_is_the_whole_recipe(synthetic: Synthetic) -> None:
    found = synthetic.results
    facts = found.cells["a-b", "ce"].facts
    facts["recipe"] = {k: v for k, v in facts["recipe"].items() if k not in ("milestones", "lr_decay")}
    facts["recipe"] |= {"schedule": {"name": "cosine", "min_lr": 0.0}, "lr": 0.1, "clip": 1.0, "precision": "bfloat16"}
    said = "learning rate 0.1 instead of 0.02, clip 1 instead of none, schedule cosine instead of steps"
    precision = "computed in bfloat16 instead of float32"
    assert budget.footnotes(found) == {"ce": f"trained with another budget: {said}; {precision}"}


def test_a_second_view_is_a_budget_too(synthetic: Synthetic) -> None:
    found = synthetic.results
    found.cells["a-b", "ce"].facts["cost"] = found.cells["a-b", "ce"].facts["cost"] | {"images_seen": 60_000}
    assert budget.footnotes(found) == {"ce": "trained with another budget: images seen 60,000 instead of 30,000"}


def test_a_footnote_on_precision_is_of_its_column(synthetic: Synthetic) -> None:
    """Whichever pair comes last: it is named where the two are not alike."""
    pairs = {n: {"teacher": "resnet20_w8", "student": "resnet8_w2"} for n in ("a-b", "a-c")}
    synthetic.write_params(params(pairs=pairs))
    for method in ("kd", "kd_10"):
        synthetic.cell("a-c", method, "0-2", [70.0, 71.0, 72.0])
    found = synthetic.results
    facts = found.cells["a-b", "kd_10"].facts
    facts["recipe"] = facts["recipe"] | {"precision": "bfloat16"}
    assert budget.footnotes(found) == {"kd_10": "computed in bfloat16 instead of float32 (a-b)"}
    for method in ("kd", "ce"):  # a column that is all in one precision has nothing to say
        facts = found.cells["a-b", method].facts
        facts["recipe"] = facts["recipe"] | {"precision": "bfloat16"}
    assert budget.footnotes(found) == {}


def test_across_pairs_only_for_several_pairs(synthetic: Synthetic) -> None:
    assert main_table(synthetic).aggregates == ()
    pairs = {n: {"teacher": "resnet20_w8", "student": "resnet8_w2"} for n in ("a-b", "a-c")}
    synthetic.write_params(params(pairs=pairs))
    synthetic.cell("a-c", "kd", "0-2", [70.0, 71.0, 72.0])
    synthetic.cell("a-c", "kd_10", "0-2", [69.0, 70.0, 71.0])
    main = main_table(synthetic)
    kd, kd_10 = main.aggregates  # student alone has no runs in a-c
    assert (kd.method, kd_10.method) == ("kd", "kd_10")
    assert kd.improvement is None
    assert kd_10.improvement == pytest.approx((1 + 2 / 9) / 2)
    assert kd_10.improvement_interval is not None
    assert kd_10.improvement_interval[0] < kd_10.improvement < kd_10.improvement_interval[1]
    assert "probability of improvement on KD" in markdown_of(synthetic)
    across = next(s for s in report(synthetic) if s.name == "across")
    for text in (*across.notes, across.caption, captions(main)["improvement"]):
        assert "ercentile bootstrap over runs" in text and "not corrected" in text and "no test" in text
    assert "[1.00, 1.00]" in across.notes[0] and "the wider interval counts" in across.notes[0]
    figure = FIGURES["improvement"][1](synthetic.results, main)
    assert figure is not None
    assert {line.get_marker() for line in figure.axes[0].lines} == {"None", "o"}  # arrows are the corrected test's


def test_the_comma_separated_file_holds_every_run(synthetic: Synthetic) -> None:
    lines = list(csv.DictReader(comma_separated.cells(main_table(synthetic)).splitlines()))
    assert len(lines) == 4
    last = lines[-1]
    assert (last["method"], last["label"], last["mark"]) == ("kd_10", "KD_10 & more", "better")
    assert dict(zip(last["seeds"].split(), last["values"].split(), strict=True)) == {"0": "85", "1": "86", "2": "86.75"}


@pytest.mark.slow
def test_the_stage_writes_the_same_bytes_again(synthetic: Synthetic) -> None:
    synthetic.tables()
    files = Layout("digits").result_files().values()
    before = {path: path.read_bytes() for path in files}
    assert len(before) >= 5
    for path in files:
        path.unlink()
    synthetic.tables()
    assert {path: path.read_bytes() for path in files} == before


def test_class_wise_effects_are_counted(synthetic: Synthetic) -> None:
    main = main_table(synthetic)
    ce, kd_10 = (next(e for e in main.classwise if e.method == name) for name in ("ce", "kd_10"))
    assert (ce.sc, ce.alone_disagreement) == (None, None)
    assert kd_10.classes == 5
    assert kd_10.sc is not None
    # A seed decides in which order images go wrong: the models differ by those that only the worse one misses.
    assert kd_10.alone_disagreement == pytest.approx((85 - 79 + 86 - 82 + 86.75 - 80) / 3)
    assert kd_10.teacher_disagreement is not None
    assert "### Class-wise effect" in markdown_of(synthetic)
    assert kd_10.teachers == 1 and head(synthetic, main) == "against this one teacher (after Holm)"
    assert head(synthetic, replace(main, classwise=(replace(kd_10, teachers=5),))) == "#TC (after Holm)"


def head(made: Synthetic, main: table.Table) -> str:
    """The title of the column against the teacher."""
    return next(s for s in sections(made.results, main) if s.name == "classwise").header[3].text


def test_a_fetched_teacher_has_one_accuracy(synthetic: Synthetic) -> None:
    synthetic.write_params(synthetic.content | {"tables": {"convention": "best", "baseline": "kd"}})
    found = synthetic.results
    for cell in found:
        for teacher in cell.facts["teachers"].values():
            del teacher["test_best"]
    assert table.build(found).rows[0].entries["a-b"].mean == 90.0


def test_the_summary_holds_numbers_only(synthetic: Synthetic) -> None:
    synthetic.tables()
    summary = json.loads(Layout("digits").result_files()["summary"].read_text())
    assert summary["a-b"]["kd"] == {"top1": 81.0, "sd": 1.0, "n": 3}
    assert summary["a-b"]["teacher"] == {"top1": 90.0, "n": 1}


def test_the_summary_has_more_decimals_than_the_table(synthetic: Synthetic) -> None:
    main = main_table(synthetic)
    (row,) = (row for row in main.rows if row.name == "kd")
    entry = replace(row.entries["a-b"], mean=0.0660049, sd=0.00012346)
    small = replace(main, measure=replace(main.measure, digits=4), rows=(replace(row, entries={"a-b": entry}),))
    assert tables.summary(small)["a-b"]["kd"] == {"top1": 0.066005, "sd": 0.000123, "n": 3}


@pytest.mark.slow
def test_show_prints_what_was_written(synthetic: Synthetic) -> None:
    synthetic.tables()
    shutil.rmtree("artifacts")  # a fresh clone has the results only
    console = Console(width=100, record=True, file=io.StringIO())
    fault = fault_of_tables(synthetic.plan)
    assert fault == ""
    show(synthetic.study, fault, console)
    text = console.export_text()
    assert "85.92 ± 0.88 (3)  +4.92 ▲" in text
    assert "Nothing was trained here: the table was compared with the study and the code" in text
    assert "KD_10 & more" in text
    assert "400 test images: one image is 0.25 points." in text


@pytest.mark.slow
def test_show_says_what_an_edit_made_out_of_date(synthetic: Synthetic) -> None:
    synthetic.tables()
    content = params()
    content["methods"]["kd_10"]["temperature"] = 11.0
    for place in ("here", "in a clone"):
        synthetic.write_params(content)
        if place == "in a clone":
            shutil.rmtree("artifacts")
        assert "methods.kd_10.temperature changed" in fault_of_tables(synthetic.plan), place
    console = Console(width=200, record=True, file=io.StringIO())
    show(synthetic.study, fault_of_tables(synthetic.plan), console)
    assert console.export_text().count("out of date: the table below is not that of the study as it is now") == 2


def test_tables_of_what_is_there_by_hand(synthetic: Synthetic) -> None:
    content = params(seeds=[0])
    synthetic.write_params(content)
    synthetic.cell("a-b", "kd", "0", [80.0])
    app(["tables"], standalone_mode=False)
    text = Layout("digits").result_files()["markdown"].read_text()
    assert text.partition("###")[0].count("— (0 of 1)") == 2


COMMITTED = sorted(path.parent.name for path in (ROOT / "results").glob("*/table.json"))


@pytest.mark.parametrize("name", COMMITTED)
def test_every_committed_table_is_shown_whatever_version_wrote_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    console = Console(width=200, record=True, file=io.StringIO())
    study = check.load(ROOT / "workflow" / "studies" / f"{name}.yaml")
    show(study, "", console)
    compare(study, "", True, console)
    text, kept = console.export_text(), json.loads((ROOT / "results" / name / "table.json").read_text())["table"]
    assert all(row["label"] in text for row in kept["rows"])
    means = [entry["mean"] for row in kept["rows"] for entry in row["entries"].values() if entry["mean"] is not None]
    digits = kept.get("measure", {"digits": 2})["digits"]
    assert means and all(f"{mean:.{digits}f}".replace("-", MINUS) in text for mean in means)


@pytest.mark.parametrize("content", ['{"table": {"rows": [{}]}}', '{"table": []}', "[]", '{"table": {"rows": {}}}'])
def test_a_damaged_table_is_refused_in_a_sentence(synthetic: Synthetic, content: str) -> None:
    path = Layout("digits").result_files()["table"]
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(DistilleryError, match="is damaged, or no table of Distillery: run the study again"):
        show(synthetic.study, "")


def test_show_without_results_says_what_to_do(synthetic: Synthetic) -> None:
    with pytest.raises(DistilleryError, match=r"no results yet .* `snakemake --cores all`, .* `--config params=FILE`"):
        show(synthetic.study, "")


@pytest.mark.slow
def test_sections_survive_the_file_that_keeps_them(synthetic: Synthetic) -> None:
    synthetic.tables()
    kept = json.loads(Layout("digits").result_files()["table"].read_text())["table"]["sections"]
    found = synthetic.results
    told = sections(found, table.build(found), {path.stem for path in Layout("digits").figures.iterdir()})
    assert [s["name"] for s in kept] == [s.name for s in told]
    assert kept[1] == json.loads(json.dumps(told[1].to_json()))
    assert kept[1]["lead"].startswith("Found: KD_10 & more (+4.92)")


def test_a_task_may_have_tables_and_figures_of_its_own(synthetic: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    table_ = SimpleNamespace(title="Gaps", header=("group", "gap"), rows=(("x", "1.5 ± 0.2"), ("y", "—")), note="Of 2.")
    monkeypatch.setattr(Classification, "sections", lambda self, cells: [table_], raising=False)
    found = synthetic.results
    own, figures = (s for s in sections(found, table.build(found), ["odd"]) if s.name in ("task-1", "figures"))
    assert (own.title, own.notes, [head.number for head in own.header]) == ("Gaps", ("Of 2.",), [False, True])
    assert [[value.sort for value in line.values] for line in own.rows] == [["x", 1.5], ["y", None]]
    assert figures.figures == ("odd",)  # of which no section knows


def test_what_was_trained_is_said_in_words(synthetic: Synthetic) -> None:
    told = {line.values[0].text: line.values[1].text for line in report(synthetic)[0].rows}
    assert told["Data"] == "digits: 50,000 train, 10,000 test images, 5 classes (test fraction 0.5)"
    assert told["Teachers"] == "resnet20_w8 (90.00 %, trained here)"
    assert told["Protocol"].startswith(
        "30 epochs of SGD, batches of 32, learning rate 0.02, times 0.1 after epochs 12,"
    )
    assert told["Budget"] == "30,000 training samples seen per run, in float32 on cpu"
    assert told["Runs"] == "3 methods, 3 seeds (0 to 2): 9 of 9 runs measured"
    assert "Trained" not in told  # when depends on the day


def test_a_table_says_what_hardware_trained(synthetic: Synthetic) -> None:
    found = synthetic.results
    for method, name in (("ce", "an H200"), ("kd_10", "a CPU")):
        facts = found.cells["a-b", method].facts
        facts["cost"] = facts["cost"] | {"hardware": name}
    assert story._budget(found).endswith("on a CPU, an H200 and cpu")  # a run kept long ago does not say


def test_a_copy_of_the_page_says_when_it_was_trained(synthetic: Synthetic) -> None:
    synthetic.tables()
    report, copy = Layout("digits").result_files()["report"], Path("dated.html")
    before = report.read_bytes()
    dated.write(synthetic.plan, copy)
    assert "<dt>Trained</dt>" not in copy.read_text()  # without the notes beside the records nobody knows when
    job = synthetic.plan.job("distill", pair="a-b", method="kd", seed="0-2")
    with Work(job, synthetic.plan.settings).making():  # as the stage does
        pass
    dated.write(synthetic.plan, copy)
    note = json.loads(job.provenance.read_text())
    assert f"<dt>Trained</dt><dd>{note['began'][:10]}, revision {note['revision'][:12]}" in copy.read_text()
    assert report.read_bytes() == before
    with pytest.raises(DistilleryError, match="stays as it was made"):
        dated.write(synthetic.plan, report)


def test_rows_say_where_their_formula_comes_from(synthetic: Synthetic) -> None:
    content = params()
    content["methods"] |= {"at": {"objective": "at"}, "ds": {"objective": "kd", "plugins": {"select": {}}}}
    synthetic.write_params(content)
    main = main_table(synthetic)
    assert {row.name: row.footnote for row in main.rows if row.footnote} == {"at": "†", "ds": "‡"}
    assert [note.partition(",")[0] for note in main.footnotes] == ["†: third-party reading", "‡: declared design"]
    methods = {line.values[0].text: line.values for line in report(synthetic)[-1].rows}
    assert methods["at"][1].link == "https://arxiv.org/abs/1612.03928" and "Zagoruyko" in methods["at"][1].text
    assert methods["KD"][2].text == "reproduced" and methods["KD"][4].text == "30 epochs, 30,000 samples"
    assert "section 2; with DS: data selection" in methods["ds"][1].text and methods["ds"][1].text.endswith("only.")
    bases = [note.partition(":")[0] for note in report(synthetic)[-1].notes]
    assert bases == ["reproduced", "third-party reading", "declared design"]
    synthetic.write_params(params())
    assert [note.partition(":")[0] for note in report(synthetic)[-1].notes] == ["reproduced"]


@pytest.mark.slow
def test_a_narrow_terminal_gets_the_pairs_below_each_other(synthetic: Synthetic) -> None:
    pairs = {n: {"teacher": "resnet20_w8", "student": "resnet8_w2"} for n in ("a-b", "a-c", "a-d")}
    synthetic.write_params(params(pairs=pairs))
    for pair in pairs:
        synthetic.cell(pair, "kd", "0-2", [80.0, 81.0, 82.0])
    synthetic.tables()
    shown = {}
    for width in (70, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        show(synthetic.study, "", console)
        shown[width] = console.export_text()
        assert shown[width].count("81.00 ± 1.00 (3)") == 3 and "…" not in shown[width]
        assert max(map(len, shown[width].splitlines())) <= width
    assert [shown[width].count("│ KD_10 & more") for width in (70, 200)] == [3, 1]
