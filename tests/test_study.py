"""params.yaml: what is accepted, and one clear sentence for what is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from distillery.pipeline.check import check, load, notes, rehearse
from distillery.records.io import DistilleryError
from distillery.study.model import expand_seeds

STUDIES = sorted((ROOT / "workflow" / "studies").glob("*.yaml"))


@pytest.fixture
def params() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def refuse(params: dict[str, Any]) -> str:
    with pytest.raises(DistilleryError) as caught:
        rehearse(check(params))
    return str(caught.value)


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_ready_made_study_is_valid(path: Path) -> None:
    study = load(path)
    assert study.study == path.stem.replace("-", "_") or study.study == path.stem
    assert study.runs()


def test_params_yaml_is_the_digits_study(params: dict[str, Any]) -> None:
    assert params == yaml.safe_load((ROOT / "workflow" / "studies" / "digits.yaml").read_text())


def test_unknown_keys_name_the_nearest(params: dict[str, Any]) -> None:
    params["methods"]["kd"]["temprature"] = 4
    params["recipe"]["epoch"] = 3
    said = refuse(params)
    assert "unknown key 'recipe.epoch': did you mean 'epochs'?" in said
    del params["recipe"]["epoch"]
    assert "methods.kd: unknown key 'temprature': did you mean 'temperature'?" in refuse(params)


def test_options_of_the_data_source_are_checked_before_anything_runs(params: dict[str, Any]) -> None:
    params["data"]["test_fracton"] = 0.5
    assert "unknown key 'data.test_fracton': did you mean 'test_fraction'?" in refuse(params)
    params["data"] = {"source": "digit"}
    assert "data.source: unknown data source 'digit': did you mean 'digits'?" in refuse(params)


def test_what_is_no_mistake_is_noted(params: dict[str, Any], tmp_path: Path) -> None:
    """A warm-up longer than the training, and what a checkpoint of the user's own is taken to have seen."""
    assert not [*notes(check(params))]
    params["recipe"]["epochs"] = 10
    params["recipe"]["milestones"] = []
    params["methods"]["dkd"] = {"objective": "dkd"}
    params["methods"]["rld"] = {"objective": "rld", "warmup_epochs": 10}
    fetched = {"architecture": "torchvision/resnet18", "source": "fetch", "weights": str(tmp_path / "a.pth")}
    params["teachers"]["mine"] = fetched
    size, warmup = notes(check(params))
    assert size.startswith(
        "teachers.mine is shown images of 224 pixels (of 256, cut, in the gate), normalised as those of "
    )
    assert "of torchvision/resnet18 with IMAGENET1K_V1 are: if" in size
    assert warmup == (
        "methods.dkd: warmup_epochs is 20 and its runs have 10: its distillation never reaches its full weight"
    )
    params["teachers"]["mine"] = fetched | {"preprocessing": {"mean": [0.5] * 3, "std": [0.2] * 3, "size": 32}}
    assert [*notes(check(params))] == [warmup]
    of_first = {"architecture": "torchvision/resnet50", "source": "fetch", "urls": [str(tmp_path / "a.pth")]}
    params["teachers"]["mine"] = of_first
    size, _ = notes(check(params))
    assert "(of 232, cut, in the gate)" in size and "with IMAGENET1K_V2" in size
    params["teachers"]["mine"] = of_first | {"weights": "IMAGENET1K_V1"}
    assert [*notes(check(params))] == [warmup]


def test_no_method_is_called_as_the_row_of_the_teacher(params: dict[str, Any]) -> None:
    params["methods"]["teacher"] = params["methods"].pop("kd")
    assert "methods.teacher: the teacher's row of every table has this name: take another one" in refuse(params)


def test_unknown_names_are_refused(params: dict[str, Any]) -> None:
    pair = next(iter(params["pairs"].values()))
    pair["student"] = "resnet8x5"
    assert "student: unknown architecture 'resnet8x5': did you mean 'resnet8x4'?" in refuse(params)
    pair["student"], pair["teacher"] = "resnet8", "resnet21"
    assert "teacher: unknown teacher 'resnet21'" in refuse(params)
    pair["teacher"] = next(iter(params["teachers"]))
    params["methods"]["kd"]["objective"] = "kdd"
    assert "methods.kd.objective: unknown objective 'kdd': did you mean 'kd'?" in refuse(params)
    params["methods"]["kd"] = {"objective": "kd", "plugins": {"standardize": {}}}
    assert "methods.kd.plugins: unknown plug-in 'standardize': did you mean 'standardise'?" in refuse(params)
    params["methods"]["kd"] = {"objective": "kd", "plus": {"crdd": {}}}
    assert "methods.kd.plus: unknown objective 'crdd'" in refuse(params)
    params["methods"]["kd"] = {"objective": "kd", "pairs": {"nobody-nothing": {"temperature": 2}}}
    assert "unknown pair 'nobody-nothing'" in refuse(params)
    params["methods"] = {"a": {"objective": "kd", "label": "KD  1"}, "b": {"objective": "ce", "label": "KD 1"}}
    params["tables"] = {}
    assert "methods.b.label: 'KD 1' is what a is called, too; tell their rows apart" in refuse(params)


def test_wrong_values_are_refused(params: dict[str, Any]) -> None:
    params["recipe"]["lr"] = -1
    assert "recipe.lr: greater than 0, not -1" in refuse(params)
    params["recipe"]["lr"] = 0.1
    params["methods"]["kd"]["temperature"] = "hot"
    assert "methods.kd: temperature: a number, not 'hot'" in refuse(params)
    params["methods"]["kd"]["temperature"] = 4
    teacher = next(iter(params["teachers"]))
    params["teachers"][teacher]["recipe"] = {"epohcs": 3}
    assert f"teachers.{teacher}.recipe: unknown key 'epohcs': did you mean 'epochs'?" in refuse(params)


def test_settings_of_a_pair_are_checked_and_applied(params: dict[str, Any]) -> None:
    pair = next(iter(params["pairs"]))
    params["methods"]["kd"]["pairs"] = {pair: {"temperature": 7}}
    method = check(params).methods["kd"]
    assert method.for_pair(pair).hyper["temperature"] == 7
    assert method.for_pair("another").hyper["temperature"] == 4
    params["methods"]["kd"] |= {"recipe": {"epochs": 29}, "pairs": {pair: {"recipe": {"lr": 0.5}}}}
    assert check(params).recipe_for(pair, "kd").model_dump().items() >= {"epochs": 29, "lr": 0.5}.items()
    params["methods"]["kd"]["pairs"] = {pair: {"recipe": {"lrr": 7}}}
    assert f"methods.kd.pairs.{pair}.recipe: unknown key 'lrr': did you mean 'lr'?" in refuse(params)
    params["methods"]["kd"]["pairs"] = {pair: {"heat": 7}}
    assert "unknown key 'heat'" in refuse(params)


def test_seeds(params: dict[str, Any]) -> None:
    assert expand_seeds("0-4") == (0, 1, 2, 3, 4)
    assert expand_seeds(3) == expand_seeds("3") == (3,)
    params["seeds"] = [0, 1, "1-2"]
    assert "seeds: 1 given twice" in refuse(params)
    params["seeds"] = ["2-1"]
    assert "neither a seed (0) nor a block" in refuse(params)


@pytest.mark.parametrize("section", ["methods", "pairs", "seeds"])
def test_empty_sections_are_refused(params: dict[str, Any], section: str) -> None:
    params[section] = [] if section == "seeds" else {}
    assert section in refuse(params)


@pytest.mark.parametrize(
    ("block", "key", "value"),
    [
        ("", "seeds", [True]),
        ("recipe", "epochs", True),
        ("recipe", "milestones", [12, False]),
        ("cache", "budget_gb", True),
        ("data", "test_fraction", True),
        ("methods.kd", "kd_weight", True),
    ],
)
def test_a_flag_is_no_number(params: dict[str, Any], block: str, key: str, value: Any) -> None:
    place = params
    for part in filter(None, block.split(".")):
        place = place[part]
    place[key] = value
    assert re.search(rf"\b{key}: a number, not (true|\[.*(True|False))", refuse(params))


# Key path -> a wrong value, and all that is said of it.
PLAIN: dict[str, tuple[Any, str]] = {
    "study": ("a/b c", "study: a name of at most 100 letters (a to z), digits and _, with single - between them, not"),
    "recipe": (["lr"], "recipe: a mapping (key: value), not ['lr']"),
    "recipe.epochs": ("four", "recipe.epochs: a whole number, not 'four'"),
    "recipe.batch_size": (0, "recipe.batch_size: greater than or equal to 1, not 0"),
    "recipe.test_every": (2.5, "recipe.test_every: a whole number, not 2.5"),
    "recipe.lr": (None, "recipe.lr: a number, not an empty value (null): give it a value, or leave the key out"),
    "recipe.graph": ("perhaps", "recipe.graph: true or false, not 'perhaps'"),
    "recipe.milestones": (1, "recipe.milestones: a list, not 1: write [1] if it is the only entry"),
    "recipe.precision": ("fp16", "recipe.precision: 'float32', 'tf32', 'bfloat16' or 'float64', not 'fp16'"),
    "recipe.schedule": ("cosine", "recipe.schedule: a mapping (key: value), not 'cosine': write {name: cosine}"),
    "recipe.ema": ({"decay": 2}, "recipe.ema.decay: less than 1, not 2"),
    "data": ("digits", "data: a mapping (key: value), not 'digits': write {source: digits}"),
    "data.test_fraction": ("0.9", "data.test_fraction: a number, not '0.9': leave out the quotes"),
    "task": ({"name": []}, "task: name the task, as in `task: {name: classification}`"),
    "teachers.resnet20_w8.architecture": (7, "architecture: text, not 7: write it in quotes if it is meant as text"),
    "teachers.resnet20_w8.sha256": ("abc", "teachers.resnet20_w8.sha256: 64 hexadecimal digits (0 to 9, a to f), not"),
    "teachers.resnet20_w8.preprocessing": ({}, "teachers.resnet20_w8.preprocessing.std is missing"),
    "teachers.resnet20_w8.preprocessing.mean": ([127.5], "preprocessing.mean.0: less than or equal to 1, not 127.5"),
    "teachers.a/b": ({"architecture": "resnet8"}, "params.yaml: teachers: a name of at most 100 letters"),
    "pairs": ({}, "pairs: 1 or more entries, not {}"),
    "pairs.resnet20_w8-resnet8_w8.teacher": (2, "teacher: text or a list, not 2: write it in quotes if"),
    "pairs.resnet20_w8-resnet8_w8": ({"teacher": [], "student": "resnet8"}, "teacher: 1 or more entries, not []"),
    "methods.kd.pairs": ({"resnet20_w8-resnet8_w8": {"label": 3}}, "kd.pairs.resnet20_w8-resnet8_w8.label: text, not"),
    "methods.kd.recipe": ({"clip": "a"}, "methods.kd.recipe.clip: a number, not 'a'"),
    "methods.kd_ls.plugins": (["standardise"], "methods.kd_ls.plugins: a mapping (key: value), not ['standardise']"),
    "methods.kd_ls.plugins.standardise": ({"std": True}, "plugins.standardise.std: 'unbiased' or 'biased', not true"),
    "seeds": ([], "seeds: 1 or more entries, not []"),
    "tables.baseline": (True, "tables.baseline: text, not true: write it in quotes if it is meant as text"),
    "tables.pictures": ([0] * 99, f"tables.pictures: true or false, not [{'0, ' * 26}0..."),
}


@pytest.mark.parametrize("place", PLAIN)
def test_wrong_kinds_are_told_in_plain_words(params: dict[str, Any], place: str) -> None:
    *outer, key = place.split(".")
    block = params
    for part in outer:
        block = block.setdefault(part, {})
    block[key], expected = PLAIN[place]
    said = refuse(params)
    assert expected in said
    assert not re.search(r"valid |validation|instance|tuple|dict|pattern|constrained|\[key\]", said)


def test_a_name_is_suggested_only_if_it_may_be_meant(params: dict[str, Any]) -> None:
    for typed, meant in {"KD": "kd", "dkdd": "dkd", "revewkd": "reviewkd"}.items():
        assert f"unknown objective {typed!r}: did you mean {meant!r}?" in refuse(params | {"methods": objective(typed)})
    for nonsense in ("banana", "x", "four"):
        assert f"unknown objective {nonsense!r}: known: adain, " in refuse(params | {"methods": objective(nonsense)})
    params["data"] = {"source": "four"}
    assert "unknown data source 'four': known: digits, " in refuse(params)
    params["data"], params["recipe"]["a"] = {"source": "digits"}, 1
    assert "unknown key 'recipe.a': known: epochs, " in refuse(params)


def objective(name: str) -> dict[str, Any]:
    return {"ce": {"objective": "ce"}, "m": {"objective": name}}


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match="there is no"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("study: [")
    with pytest.raises(DistilleryError, match="line 1, column 9: what opens here is never closed"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- a list")
    with pytest.raises(DistilleryError, match="must be a mapping"):
        load(tmp_path / "params.yaml")


def test_an_override_of_one_key_of_a_block_leaves_the_others(params: dict[str, Any]) -> None:
    ema = {"decay": 0.5, "warmup": True}
    params["recipe"] |= {"augmentation": {"pad": 1, "flip": False}, "ema": ema}
    [teacher], [pair] = params["teachers"].values(), params["pairs"]
    teacher["recipe"] = {"ema": None}
    params["methods"]["kd"] |= {
        "recipe": {"augmentation": {"view_seed": 3}, "ema": {"student": "raw"}},
        "pairs": {pair: {"recipe": {"augmentation": {"pad": 2}}}},
    }
    study = check(params)
    found = study.recipe_for(pair, "kd")
    assert found.augmentation.model_dump() == {"pad": 2, "flip": False, "view_seed": 3}
    assert found.ema and found.ema.model_dump().items() >= (ema | {"student": "raw"}).items()
    [name] = params["teachers"]
    assert study.recipe_for_teacher(name).ema is None
    assert study.recipe_for_teacher(name).augmentation.model_dump() == {"pad": 1, "flip": False}
