"""params.yaml: what is accepted, and one clear sentence for what is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from distillery.pipeline.check import check, load, rehearse
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
    assert "unknown data source 'digit': did you mean 'digits'?" in refuse(params)


def test_no_method_is_called_as_the_row_of_the_teacher(params: dict[str, Any]) -> None:
    params["methods"]["teacher"] = params["methods"].pop("kd")
    assert "methods.teacher: the teacher's row of every table has this name: take another one" in refuse(params)


def test_unknown_names_are_refused(params: dict[str, Any]) -> None:
    pair = next(iter(params["pairs"].values()))
    pair["student"] = "resnet8x5"
    assert "unknown architecture 'resnet8x5': did you mean 'resnet8x4'?" in refuse(params)
    pair["student"], pair["teacher"] = "resnet8", "resnet21"
    assert "unknown teacher 'resnet21'" in refuse(params)
    pair["teacher"] = next(iter(params["teachers"]))
    params["methods"]["kd"]["objective"] = "kdd"
    assert "unknown objective 'kdd': did you mean 'kd'?" in refuse(params)
    params["methods"]["kd"] = {"objective": "kd", "plugins": {"standardize": {}}}
    assert "unknown plug-in 'standardize': did you mean 'standardise'?" in refuse(params)
    params["methods"]["kd"] = {"objective": "kd", "plus": {"crdd": {}}}
    assert "plus: unknown objective 'crdd'" in refuse(params)
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
    assert "methods.kd: temperature: a valid number, not 'hot'" in refuse(params)
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
    assert re.search(rf"\b{key}: a (valid )?number, not \[?.*(True|False)", refuse(params))


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DistilleryError, match="there is no"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("study: [")
    with pytest.raises(DistilleryError, match="line 1, column 9: what opens here is never closed"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- a list")
    with pytest.raises(DistilleryError, match="must be a mapping"):
        load(tmp_path / "params.yaml")
