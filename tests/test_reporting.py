"""From metrics to tables: nothing is lost, nothing is claimed that was not found, and the same goes in as comes out."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_study import Synthetic, params

from distillery.cli import app
from distillery.pipeline.current import fault_of_tables
from distillery.pipeline.layout import Layout
from distillery.records.io import DistilleryError
from distillery.report import budget, comma_separated, latex, markdown, table
from distillery.report.terminal import show


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


def test_rows_are_teacher_then_student_alone_then_methods(synthetic: Synthetic) -> None:
    assert [row.name for row in main_table(synthetic).rows] == ["teacher", "ce", "kd", "kd_10"]


def test_missing_runs_show_with_n_and_are_listed(synthetic: Synthetic) -> None:
    Layout("digits").metrics("a-b", "ce", "0-2").unlink()
    main = main_table(synthetic)
    assert entry(synthetic, "ce").mean is None
    assert main.missing == ("a-b, ce, seeds 0, 1, 2: no result yet",)
    text = markdown.markdown(main)
    assert "| student alone |               — (0 of 3) |" in text
    assert "Missing runs:\n\n- a-b, ce, seeds 0, 1, 2: no result yet" in text
    assert "--- (0 of 3)" in latex.latex(main)


def test_a_seed_missing_within_a_file_is_missed(synthetic: Synthetic) -> None:
    path = Layout("digits").metrics("a-b", "kd_10", "0-2")
    record = json.loads(path.read_text())
    record["runs"] = record["runs"][:2]
    path.write_text(json.dumps(record))
    found = entry(synthetic, "kd_10")
    assert (found.n, found.expected) == (2, 3)
    assert found.mark is None  # two runs are never tested
    assert main_table(synthetic).missing == (f"a-b, kd_10, seed 2: {path} holds no seed 2",)
    assert "85.50 ± 0.71 (2 of 3)" in markdown.markdown(main_table(synthetic))


def test_results_of_other_parameters_do_not_count(synthetic: Synthetic) -> None:
    content = params()
    content["methods"]["kd_10"]["temperature"] = 11.0
    synthetic.write_params(content)
    main = main_table(synthetic)
    assert len(main.missing) == 1
    assert (
        "kd_10, seeds 0, 1, 2: out of date (methods.kd_10.temperature changed): run the study again" in main.missing[0]
    )
    assert entry(synthetic, "kd").n == 3


def test_a_damaged_file_is_a_missing_run_not_a_crash(synthetic: Synthetic) -> None:
    Layout("digits").metrics("a-b", "ce", "0-2").write_text('{"runs": [')
    assert "0-2.json is damaged or cut short" in main_table(synthetic).missing[0]


def test_files_that_are_not_of_the_study_are_ignored(synthetic: Synthetic) -> None:
    before = markdown.markdown(main_table(synthetic)), comma_separated.cells(main_table(synthetic))
    layout = Layout("digits")
    kept = layout.metrics("a-b", "kd", "0-2")
    for stray in (
        layout.metrics("a-b", "other", "0-2"),
        layout.metrics("x-y", "kd", "0"),
        layout.metrics("a-b", "kd", "7"),
    ):
        stray.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kept, stray)
    assert (markdown.markdown(main_table(synthetic)), comma_separated.cells(main_table(synthetic))) == before


def test_no_arrow_and_no_bold_with_two_seeds_however_large_the_difference(synthetic: Synthetic) -> None:
    synthetic.write_params(params(seeds=["0-1"]))
    synthetic.cell("a-b", "kd", "0-1", [10.0, 11.0])
    synthetic.cell("a-b", "ce", "0-1", [10.0, 10.5])
    synthetic.cell("a-b", "kd_10", "0-1", [90.0, 92.0])
    main = main_table(synthetic)
    text = markdown.markdown(main) + latex.latex(main)
    cells = [e for row in main.rows for e in row.entries.values()]
    assert not any(e.best or e.mark for e in cells)
    assert "**" not in text
    assert "\\textbf" not in text
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
    assert "**85.96 ± 0.64** (6) ▲" in markdown.markdown(main_table(synthetic))
    assert "\\textbf{85.96} $\\pm$ 0.64 (6)\\,$\\uparrow$" in latex.latex(main_table(synthetic))


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
    assert "KD\\_10 & more<sup>a</sup>" in markdown.markdown(main)
    assert "KD\\_10 \\& more\\textsuperscript{a}" in latex.latex(main)


def test_a_budget_is_the_whole_recipe(synthetic: Synthetic) -> None:
    found = synthetic.results
    facts = found.cells["a-b", "ce"].facts
    facts["recipe"] = {k: v for k, v in facts["recipe"].items() if k not in ("milestones", "lr_decay")}
    facts["recipe"] |= {"schedule": {"name": "cosine", "min_lr": 0.0}, "lr": 0.1, "clip": 1.0, "precision": "bfloat16"}
    said = "learning rate 0.1 instead of 0.02, clip 1 instead of none, schedule cosine instead of steps"
    said += ", precision bfloat16 instead of float32"
    assert budget.footnotes(found) == {"ce": f"trained with another budget: {said}"}


def test_a_second_view_is_a_budget_too(synthetic: Synthetic) -> None:
    found = synthetic.results
    found.cells["a-b", "ce"].facts["cost"] = found.cells["a-b", "ce"].facts["cost"] | {"images_seen": 60_000}
    assert budget.footnotes(found) == {"ce": "trained with another budget: images seen 60,000 instead of 30,000"}


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
    assert "probability of improvement on KD" in markdown.markdown(main)


def test_the_comma_separated_file_holds_every_run(synthetic: Synthetic) -> None:
    lines = list(csv.DictReader(comma_separated.cells(main_table(synthetic)).splitlines()))
    assert len(lines) == 4
    last = lines[-1]
    assert (last["method"], last["label"], last["mark"]) == ("kd_10", "KD_10 & more", "better")
    assert dict(zip(last["seeds"].split(), last["values"].split(), strict=True)) == {"0": "85", "1": "86", "2": "86.75"}


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
    written = markdown.markdown(main)
    assert "### Class-wise effect" in written
    assert kd_10.teachers == 1 and "against this one teacher (after Holm)" in written and "#TC (" not in written
    repeated = replace(main, classwise=(replace(kd_10, teachers=5),))
    assert "#TC (after Holm)" in markdown.markdown(repeated) and "this one" not in markdown.markdown(repeated)


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


def test_show_prints_what_was_written(synthetic: Synthetic) -> None:
    synthetic.tables()
    shutil.rmtree("artifacts")  # a fresh clone has the results only
    console = Console(width=100, record=True, file=io.StringIO())
    fault = fault_of_tables(synthetic.plan)
    assert fault == ""
    show(synthetic.study, fault, console)
    text = console.export_text()
    assert "85.92 ± 0.88 (3)  +4.92 ▲" in text
    assert "Nothing was trained here: the table was compared with params.yaml and the code" in text
    assert "KD_10 & more" in text
    assert "400 test images: one image is 0.25 points." in text


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


def test_show_without_results_says_what_to_do(synthetic: Synthetic) -> None:
    with pytest.raises(DistilleryError, match=r"study 'digits' has no results yet .* run `snakemake"):
        show(synthetic.study, "")


def test_latex_compiles(synthetic: Synthetic) -> None:
    if not (engine := shutil.which("tectonic") or shutil.which("pdflatex")):
        pytest.skip("there is no LaTeX on this machine")
    body = latex.latex(main_table(synthetic))
    Path("t.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\\end{{document}}",
        encoding="utf-8",
    )
    done = subprocess.run([engine, "t.tex"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-2000:]
    assert Path("t.pdf").stat().st_size > 1000
