"""Labels that hold anything: LaTeX compiles, and Markdown, page, terminal, CSV and figures show what was written."""

# ruff: noqa: RUF001
from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from html import unescape
from pathlib import Path

import pytest
from latex_engine import TWO_COLUMNS, compiled
from rich.console import Console
from synthetic_study import Synthetic, params

from distillery.pipeline.layout import Layout
from distillery.report import markdown
from distillery.report.terminal import show
from distillery.report.tex import BEYOND, PREAMBLE, escape

pytestmark = pytest.mark.slow

AWKWARD = 'KD τ=4 & α_1 50% #2 ~ ^ | <b>x</b> [1] "q" $x$ é, “z” \\ * `c` :fire: &amp; 🙂 知'
LABELS = {"kd": AWKWARD, "ce": "[red]* alone", "kd_10": "_KD, τ = 10"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a study with such labels, and what the terminal shows."""
    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return files_in(root)


def files_in(root: Path) -> dict[str, str]:
    content = params()
    for name, label in LABELS.items():
        content["methods"][name]["label"] = label
    content["methods"]["kd_10"]["recipe"] = {"epochs": 60}  # a footnote
    pairs = {n: {"teacher": "resnet20_w8", "student": "resnet8_w2"} for n in ("a-b", "a-c")}
    made = Synthetic(root, content | {"pairs": pairs})
    for pair in pairs:
        made.cell(pair, "kd", "0-2", [80.0, 81.0, 82.0])
        made.cell(pair, "kd_10", "0-2", [85.0, 86.0, 86.75])
    made.tables()
    console = Console(width=400, record=True, file=io.StringIO())
    show(made.study, "", console)
    files = {name: path.read_text(encoding="utf-8") for name, path in Layout("digits").result_files().items()}
    curves = (Layout("digits").figures / "curves.svg").read_text(encoding="utf-8")
    return files | {"terminal": console.export_text(), "curves": curves}


@pytest.mark.slow
@pytest.mark.parametrize("around", ["", TWO_COLUMNS])
def test_latex_compiles_with_any_label(written: dict[str, str], tmp_path: Path, around: str) -> None:
    compiled(around.replace("BODY", written["latex"]) or written["latex"], tmp_path)
    assert "KD $\\tau$=4 \\& $\\alpha$\\_1 50\\% \\#2" in written["latex"]
    assert "Compile with XeLaTeX or LuaLaTeX" in written["latex"].splitlines()[0]


def test_latex_compiles_with_any_character(tmp_path: Path) -> None:
    """One of every kind, and all of the blocks in which letters, signs and accents lie."""
    numbers = [*range(0x3000), *range(0x3000, 0x1FFFF, 97), *range(0x1D400, 0x1D800), *range(0x1F300, 0x1FB00, 7)]
    characters = [chr(n) for n in numbers if unicodedata.category(chr(n)) != "Cs"]
    rows = ["".join(characters[i : i + 10]) for i in range(0, len(characters), 10)]
    rows += [f"{c}{c}" for c in characters[:128]]  # of which some would join, or be an argument of the line's end
    tabular = "\\begin{{tabular}}{{l}}\n{}\n\\end{{tabular}}\n"
    lines = (" \\\\\n".join(map(escape, rows[i : i + 20])) for i in range(0, len(rows), 20))
    body = "\n".join([*PREAMBLE, *(tabular.format(text) for text in lines)])
    compiled(f"\\documentclass{{article}}\\begin{{document}}\n{body}\n\\end{{document}}\n", tmp_path, ())


def test_what_plain_text_becomes() -> None:
    for text, latex in {
        "DKD, β=8": "DKD, $\\beta$=8",
        "Müller, Šojka, naïve": 'M\\"{u}ller, \\v{S}ojka, na\\"{\\i}ve',
        "ŷ and y\u0302": "\\^{y} and \\^{y}",
        "x² H₂O ﬁt 𝛼": "x\\textsuperscript{2} H\\textsubscript{2}O fit $\\alpha$",
        "a--b": "a-{}-b",
        "* a": "{*} a",
        "a\nb\u200bc": "a bc",
        "≤ 50 %": "$\\leq$ 50 \\%",
    }.items():
        assert escape(text) == latex
        assert BEYOND not in latex
    assert escape("知🙂") == "\\beyond{知}{{[}U+77E5{]}}\\beyond{🙂}{{[}slightly smiling face{]}}"


def test_a_table_that_pdflatex_can_set_says_nothing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = params()
    content["methods"]["kd"]["label"] = "KD, τ = 4 (Müller)"
    made = Synthetic(tmp_path, content)
    made.tables()
    assert BEYOND not in Layout("digits").result_files()["latex"].read_text()


def test_markdown_keeps_its_columns_and_its_text(written: dict[str, str]) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", written["markdown"], re.MULTILINE)
    counts = [{len(re.findall(r"(?<!\\)\|", line)) for line in lines.splitlines()} for lines in tables]
    assert len(tables) == 6 and all(len(found) == 1 for found in counts)
    plain = re.sub(r"\\([^A-Za-z0-9\s])", r"\1", written["markdown"])
    assert all(plain.count(label) >= 2 for label in LABELS.values())
    for text, shown in {
        "$x$": "\\$x\\$",
        "&amp; & b": "\\&amp; & b",
        "# a": "\\# a",
        "1. a": "1\\. a",
        "- a": "\\- a",
        "-3.20": "-3.20",
        "~~a~~": "\\~\\~a\\~\\~",
    }.items():
        assert markdown.escape(text) == shown


def test_page_terminal_and_csv_show_the_label(written: dict[str, str]) -> None:
    assert all(label in unescape(written["report"]) for label in LABELS.values())
    assert "<b>x</b>" not in written["report"]
    assert all(label in written["terminal"] for label in LABELS.values())
    assert f"on {AWKWARD}" in written["terminal"]
    assert {row["label"] for row in csv.DictReader(written["csv"].splitlines())} >= set(LABELS.values())
    assert {row["label"] for row in json.loads(written["table"])["table"]["rows"]} >= set(LABELS.values())


def test_figures_show_the_label(written: dict[str, str]) -> None:
    shown = [unescape(text).lstrip("\u200b") for text in re.findall(r"<text[^>]*>([^<]*)</text>", written["curves"])]
    assert {LABELS["kd"], LABELS["kd_10"]} <= set(shown)


def test_a_label_is_one_line_without_control_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = params()
    content["methods"]["kd"]["label"] = "KD\n\n(\u202eours\u2066)\x07\t!"
    made = Synthetic(tmp_path, content)
    made.tables()
    assert "| KD (ours) !" in Layout("digits").result_files()["markdown"].read_text()
