"""The reader of params.yaml: plain values, the same as DVC's reader gives, or one sentence that names the place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml
from dvc.utils.serialize._yaml import YAMLFileCorruptedError

from distillery.pipeline import sync
from distillery.pipeline.check import check, load
from distillery.records.io import DistilleryError
from distillery.study.model import Cache, Recipe, Tables
from distillery.study.reader import read_params

ROOT = Path(__file__).resolve().parents[1]
SMALL = """\
study: small
data: {source: digits, test_fraction: 0.5}
recipe:
  epochs: 2
  milestones: [1]
  augmentation: {pad: 1, flip: false}
teachers:
  t: {architecture: resnet8_w4, source: train, seed: 0}
pairs:
  t-s: {teacher: t, student: resnet8_w2}
methods:
  ce: {objective: ce, label: alone}
  kd: {objective: kd, label: KD}
seeds: [0]
cache: {pooled: true}
tables: {baseline: kd}
"""

READ = {
    "small numbers": ("{a: 5e-05, b: 1e-4, c: 9e-1}\n", {"a": 5e-05, "b": 1e-4, "c": 0.9}),
    "in a block": (
        "recipe:\n  lr: 2e-2\n  list: [1e-3, 1E5, 1., .5]\n",
        {"recipe": {"lr": 0.02, "list": [1e-3, 1e5, 1.0, 0.5]}},
    ),
    "plain words": ("{no: on, yes: off, y: NO, On: n}\n", {"no": "on", "yes": "off", "y": "NO", "On": "n"}),
    "booleans": ("{a: true, b: False, c: null, d: ~, e: }\n", {"a": True, "b": False, "c": None, "d": None, "e": None}),
    "times and ranges": ("{a: 1:30, b: 0-2, c: '2020-01-01'}\n", {"a": "1:30", "b": "0-2", "c": "2020-01-01"}),
    "integers": ("{a: 010, b: 0o10, c: 0x10, d: 1_000, e: +1}\n", {"a": 10, "b": 8, "c": 16, "d": 1000, "e": 1}),
    "quoted": ("{a: '1', b: \"5e-05\", '1': c}\n", {"a": "1", "b": "5e-05", "1": "c"}),
    "alias": ("a: &x {b: [1, 2]}\nc: *x\n", {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}),
    "merge": ("x: &x {b: 1, c: 1}\ny: {<<: *x, b: 2}\n", {"x": {"b": 1, "c": 1}, "y": {"b": 2, "c": 1}}),
    "merge twice": (
        "x: &x {b: 1}\ny: &y {<<: *x, b: 2}\nz: {<<: [*y, {b: 3, c: 4}]}\n",
        {"x": {"b": 1}, "y": {"b": 2}, "z": {"b": 2, "c": 4}},
    ),
    "standard tags": ("{a: !!str 1, b: !!float 1}\n", {"a": "1", "b": 1.0}),
    "long texts": ("a: |\n  x\n  y\nb: >-\n  u\n  v\n", {"a": "x\ny\n", "b": "u v"}),
    "other alphabets": ("a: é, τ = 4\n", {"a": "é, τ = 4"}),
    "byte order mark": ("\ufeffa: 1\n", {"a": 1}),
    "Windows line ends": ("a: 1\r\nb: [1,\r\n 2]\r\n", {"a": 1, "b": [1, 2]}),
}

REFUSED = {
    "twice": (
        "methods:\n  kd: {a: 1}\n  kd: {b: 2}\n",
        "line 3, column 3: methods.kd is given twice, on lines 2 and 3",
    ),
    "twice at the top": (
        "a: 1\nb: 2\na: 3\n",
        "line 3, column 1: a is given twice, on lines 1 and 3; rename or",
    ),
    "twice, deep": ("a: [{b: {c: 1,\n  c: 2}}]\n", "line 2, column 3: a.0.b.c is given twice, on lines 1 and 2; "),
    "twice, once quoted": ("a: 1\n'a': 2\n", "line 2, column 1: a is given twice, on lines 1 and 2; "),
    "twice beside a merge": ("x: &x {b: 1}\ny:\n  <<: *x\n  c: 2\n  c: 3\n", "y.c is given twice, on lines 4 and 5; "),
    "two merges": ("x: &x {b: 1}\ny:\n  <<: *x\n  <<: *x\n", "y.<< is given twice, on lines 3 and 4; "),
    "infinity": ("a: {b: [0, -.inf]}\n", "line 1, column 12: a.b.1 is -.inf, not a finite number; "),
    "not a number": ("a: .nan\n", "line 1, column 4: a is .nan, not a finite number; "),
    "too large": ("a: 1e999\n", "line 1, column 4: a is 1e999, not a finite number; "),
    "too many digits": (f"a: {'9' * 5000}\n", "line 1, column 4: a is not a proper int; "),
    "date": ("a: 2020-01-01\n", "line 1, column 4: a is a date, which no study needs; write it in quotes if "),
    "own tag": ("a: !foo {b: 1}\n", "line 1, column 4: a is tagged !foo, which no study needs"),
    "python": ("a: !!python/object/apply:os.system [ls]\n", "a is tagged python/object/apply:os.system, which no"),
    "set": ("a: !!set {b}\n", "line 1, column 4: a is tagged set, which no study needs"),
    "wrong tag": ("a: !!int x\n", "line 1, column 4: a is not a proper int; write it in quotes if it is meant as text"),
    "wrong tag of a mapping": ("a: !!map [1]\n", "line 1, column 4: expected a mapping node, but found sequence"),
    "equals sign": ("a: =\n", "line 1, column 4: a is '=', which no study needs; write it in quotes"),
    "number as key": (
        "methods:\n  1: {a: 2}\n",
        "line 2, column 3: the key 1 of methods is not text; write it",
    ),
    "boolean as key": ("true: 1\n", "line 1, column 1: the key true is not text; write it in quotes"),
    "list as key": ("? [1]\n: 2\n", "line 1, column 3: a key is not text; write it in quotes"),
    "itself": ("a: &x [*x]\n", "line 1, column 4: a.0 contains itself; write its value out"),
    "no anchor": ("a: *x\n", "line 1, column 4: found undefined alias 'x'; an alias (*name) needs its anchor"),
    "merge of a number": ("a: {<<: 3}\n", "line 1, column 9: expected a mapping or list of mappings for merging"),
    "tab": ("a:\n\tb: 1\n", "line 2, column 1: the line is indented by a tab; use spaces"),
    "tab later": ("a:\n  b: 1\n\tc: 2\n", "line 3, column 1: the line is indented by a tab; use spaces"),
    "quote": ('a: 1\nb: "x\nc: 2\n', "line 2, column 4: what opens here is never closed (scanning a quoted scalar)"),
    "bracket": ("a: 1\nb: [1, 2\n", "line 2, column 4: what opens here is never closed (parsing a flow sequence)"),
    "quote in a quote": ("a: 'it's'\n", "line 1, column 8: expected <block end>, but found '<scalar>'; indent all"),
    "escape": ('a: "\\q"\n', "line 1, column 6: found unknown escape character 'q' (while scanning a double-quoted"),
    "colon": ("a: KD: T 4\n", "line 1, column 6: mapping values are not allowed here; put a text that holds ': ' in"),
    "indentation": ("a: 1\n b: 2\n", "line 2, column 3: mapping values are not allowed here; put a text that holds"),
    "at sign": ("a: @x\n", "line 1, column 4: found character '@' that cannot start any token; put the text in quotes"),
    "other line ends": ("a: 1\rb: [2\r", "line 2, column 4: what opens here is never closed"),
    "directive": ("%YAML 1.1\n---\na: no\n", "line 1, column 1: a line may not begin with %; remove it"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2, column 1: but found another document; one file holds one study"),
    "depth": ("[" * 5000, " is nested too deeply for a study: close its brackets"),
    "NUL": ("a: 1\nb: \0\n", "line 2, column 4: the character U+0000 is not text; save the file as UTF-8 text"),
    "empty": ("", " is empty: put a study in place (`distillery study NAME`)"),
    "comment": ("# a study\n", " is empty: put a study in place (`distillery study NAME`)"),
    "list": ("- a\n- b\n", " must be a mapping of sections (study, data, recipe, ...)"),
    "text": ("a\n", " must be a mapping of sections (study, data, recipe, ...)"),
    "null": ("---\n", " must be a mapping of sections (study, data, recipe, ...)"),
}


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DistilleryError) as caught:
        read_params(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and "\n" not in said
    return said


def all_types(value: Any) -> set[type]:
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return {type(value)}.union(*map(all_types, inner))


@pytest.mark.parametrize("name", READ)
def test_reads_plain_values_as_dvc_does(tmp_path: Path, name: str) -> None:
    text, expected = READ[name]
    path = written(tmp_path, text)
    found = read_params(path)
    assert found == expected and repr(found) == repr(dict(load_yaml(str(path))))
    assert all_types(found) <= {dict, list, str, int, float, bool, type(None)}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_in_one_sentence_with_the_place(tmp_path: Path, name: str) -> None:
    text, sentence = REFUSED[name]
    assert sentence in refusal(written(tmp_path, text))


@pytest.mark.parametrize(
    "content", [SMALL, *(p.read_text() for p in sorted((ROOT / "workflow/studies").glob("*.yaml")))]
)
def test_studies_read_as_dvc_reads_them(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, content)
    assert repr(read_params(path)) == repr(load_yaml(str(path)))


@pytest.mark.parametrize("name", ["twice", "two merges", "own tag", "python", "tab", "quote", "colon", "no anchor"])
def test_what_dvc_refuses_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(YAMLFileCorruptedError):
        load_yaml(str(written(tmp_path, REFUSED[name][0])))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: 1\nb: KD M-ö\n".encode("latin-1"), "line 2, column 9: byte 0xf6 is not UTF-8; save the file as UTF-8"),
        (b"\xef\xbb\xbfa: \xff\n", "line 1, column 4: byte 0xff is not UTF-8; save the file as UTF-8"),
        (SMALL.encode("utf-16"), "line 1, column 1: a UTF-16 file begins like this; save it as UTF-8"),
        (SMALL.encode("utf-16-le"), "line 1, column 2: the character U+0000 is not text; save the file as UTF-8 text"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    assert refusal(written(tmp_path, content)).endswith(sentence)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match=r"there is no .*params\.yaml here: go to the repository root, or begin"):
        read_params(tmp_path / "params.yaml")
    assert refusal(tmp_path).endswith("cannot be read: Is a directory")


def test_what_one_caller_changes_no_other_sees(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL)
    read_params(path)["recipe"]["epochs"] = 9
    assert read_params(path)["recipe"]["epochs"] == 2
    written(tmp_path, SMALL.replace("epochs: 2", "epochs: 3"))
    assert read_params(path)["recipe"]["epochs"] == 3


def test_many_aliases_are_looked_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(DistilleryError, match="b is given twice"):
        read_params(written(tmp_path, "\n".join([*lines, "b: 1", "b: 2"])))


def test_small_numbers_reach_the_methods(tmp_path: Path) -> None:
    text = SMALL.replace("label: KD}", "label: KD, kd_weight: 5e-05, temperature: 4e+0}")
    assert load(written(tmp_path, text)).methods["kd"].hyper == {"kd_weight": 5e-05, "temperature": 4.0}


def test_a_method_may_be_called_no(tmp_path: Path) -> None:
    assert list(load(written(tmp_path, SMALL.replace("  ce:", "  no:"))).methods) == ["no", "kd"]


@pytest.mark.parametrize(("seeds", "runs"), [("5", [5]), ("0-2", [0, 1, 2]), ('"3"', [3]), ("[0, 2-3]", [0, 2, 3])])
def test_seeds_may_be_one_bare_entry(tmp_path: Path, seeds: str, runs: list[int]) -> None:
    study = load(written(tmp_path, SMALL.replace("seeds: [0]", f"seeds: {seeds}")))
    assert [seed for _, method, seed in study.runs() if method == "kd"] == runs


def test_seeds_that_are_none(tmp_path: Path) -> None:
    for seeds in ("two", "-1", "2-0"):
        with pytest.raises(DistilleryError, match=re.escape(f"seeds: {seeds!r} is neither a seed (0) nor a block")):
            check({**read_params(written(tmp_path, SMALL)), "seeds": seeds})


def test_sections_of_defaults_may_be_left_out(tmp_path: Path) -> None:
    params = read_params(written(tmp_path, SMALL))
    del params["recipe"], params["cache"], params["tables"]
    study = check(params)
    assert (study.recipe, study.cache, study.tables) == (Recipe(), Cache(), Tables())


def test_bare_seeds_cannot_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (".git", ".dvc"):
        (tmp_path / folder).mkdir()
    written(tmp_path, SMALL.replace("seeds: [0]", "seeds: 0-2"))
    sentence = 'seeds is not a list, which dvc.yaml needs: write `seeds: ["0-2"]` in params.yaml'
    with pytest.raises(DistilleryError, match=f"^{re.escape(sentence)}$"):
        sync.record()
