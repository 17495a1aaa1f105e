"""Tables for papers: as wide as a page, whatever they hold, alone and in a two-column article."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from latex_engine import TWO_COLUMNS, compiled, fits

from distillery.report.latex import latex
from distillery.report.sections.section import Head, Line, Section, Value, words
from distillery.report.text import MINUS


def section(pairs: int, methods: int, **changes: str) -> Section:
    """A main table of numbers of two digits, the first method marked, the second missing, the third with fewer runs."""

    def value(row: int) -> Value:
        if row == 1:
            return Value("—", tail=" (0 of 5)")
        tail = " (4 of 5)" if row == 2 else " (5)"
        return Value(f"{70 + row % 9}.{row:02}", "0.34", tail, "better" if row == 0 else "", strong=row == 0)

    names = changes.get("teacher", "resnet32x4"), changes.get("student", "shufflenet_v1")
    header = (Head("method", False), *(Head(f"{names[0]}\n→ {names[1]}") for _ in range(pairs)))
    teacher = Line((Value("teacher"), *(Value("79.42", tail=" (1)") for _ in range(pairs))), "teacher")
    rows = [Line((Value(f"METHOD {i}", note="a"), *(value(i) for _ in range(pairs))), "method") for i in range(methods)]
    caption = "Test accuracy in percent on a data set; a protocol. Arrows: p < 0.05."
    return Section("results", "A study", header, (teacher, *rows), footnotes=("a: a note",), caption=caption)


@pytest.mark.slow
def test_a_large_study_fits_pages_alone_and_in_two_columns(tmp_path: Path) -> None:
    text = latex([section(14, 25)], "large")
    assert "resizebox" not in text and text.count("\\begin{table*}") == text.count("\\end{table*}") >= 3
    pages = text.count("\\begin{table*}")
    assert re.findall(r"\\label{([^}]*)}", text) == ["tab:large", *(f"tab:large-{i}" for i in range(2, pages + 1))]
    assert len(re.findall("79.42", text)) == 14 and len(re.findall(r"--- \(0 of 5\)", text)) == 14
    for document in (text, TWO_COLUMNS.replace("BODY", text)):
        assert fits(compiled(document, tmp_path))


@pytest.mark.slow
def test_a_small_table_stands_in_one_column(tmp_path: Path) -> None:
    text = latex([section(1, 8)], "small")
    assert "\\begin{table}" in text
    assert fits(compiled(TWO_COLUMNS.replace("BODY", text), tmp_path))


def test_the_usual_number_of_runs_is_said_once() -> None:
    text = latex([section(1, 8)], "small")
    assert "(5)" not in text and text.count("(4 of 5)") == 1
    assert "\\bfseries 70.00 & {\\scriptsize$\\pm$0.34}$^{\\uparrow}$" in text
    assert "S[table-format=2.2]" in text


@pytest.mark.slow
def test_long_names_of_networks_get_a_key(tmp_path: Path) -> None:
    text = latex([section(3, 2, teacher="timm/regnety_160.deit_in1k", student="imagenet_resnet18")], "named")
    assert "\\multicolumn{2}{c}{regnety\\_160}" in text and "\\multicolumn{2}{c}{resnet18}" in text
    assert "regnety\\_160: timm/regnety\\_160.deit\\_in1k" in text
    longest = latex([section(1, 2, teacher="a_network_with_a_long_name")], "named")
    assert "\\multicolumn{2}{c}{A}" in longest and "A: a\\_network\\_with\\_a\\_long\\_name" in longest
    assert fits(compiled(text, tmp_path))


@pytest.mark.slow
def test_many_rows_keys_and_missing_runs_go_on_on_further_pages(tmp_path: Path) -> None:
    many = section(16, 60, student="a_network_with_a_long_name_")
    heads = (many.header[0], *(Head(f"{head.text}{i}") for i, head in enumerate(many.header[1:])))
    missing = tuple(f"Missing: pair, method {i}, seeds 0 to 4: no result yet" for i in range(40))
    text = latex([replace(many, header=heads, warnings=missing)], "many")
    assert text.count("METHOD 59") == text.count("METHOD 0\\textsuperscript") > 1
    assert text.count("Missing: ") == 9 and "Missing: 32 more, listed in table.md" in text
    assert fits(compiled(text, tmp_path))


def test_only_names_above_columns_of_pairs_get_a_key() -> None:
    rows = (Line((Value("m"), Value("0.50"))),)
    header = (Head("method", False), Head("probability of improvement on KD"))
    text = latex([Section("across", "Across pairs", header, rows, caption="Across pairs")], "study")
    assert "probability of improvement on KD" in text and "A: " not in text


@pytest.mark.slow
def test_the_methods_and_their_settings_are_a_table_of_words(tmp_path: Path) -> None:
    header = tuple(
        Head(n, False) for n in ("method", "what it is", "formula", "precision", "budget of one run", "settings")
    )
    about = 'DKD: Zhao et al., "Decoupled knowledge distillation" (arXiv:2203.08679, CVPR 2022), equations 6 to 8.'
    values = words("DKD", about, "reproduced", "float32", "30 epochs", "ce weight 1, temperature 4, warmup_epochs 2")
    methods = Section(
        "methods", "The methods", header, (Line(values),) * 40, notes=("reproduced: as told.",), caption="All."
    )
    text = latex([methods], "study")
    assert text.count("``Decoupled knowledge distillation''") == 40 and text.count("warmup\\_epochs 2") == 40
    assert "\\label{tab:study-methods}" in text and "\\label{tab:study-methods-2}" in text
    assert text.count("reproduced: as told.") == 1 and "float32" not in text
    for document in (text, TWO_COLUMNS.replace("BODY", text)):
        assert fits(compiled(document, tmp_path))


def test_lower_numbers_have_a_true_minus() -> None:
    rows = (Line((Value("m"), Value(f"{MINUS}1.25", "0.50"))), Line((Value("n"), Value("+10.50"))))
    text = latex([Section("x", "X", (Head("method", False), Head("value")), rows, caption="X")], "signs")
    assert "S[table-format=+2.2]" in text and "-1.25 & {\\scriptsize$\\pm$0.50}" in text
