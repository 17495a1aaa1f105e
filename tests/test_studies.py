"""The ready-made studies: published pairs, methods and settings, held to a second transcription of their source."""

from __future__ import annotations

import csv
import re
from functools import cache
from itertools import chain
from typing import Any

import golden
import pytest
import torch
import yaml
from conftest import ROOT
from ruamel.yaml import YAML

from distillery import models
from distillery.models.base import Network, Outputs
from distillery.objectives.base import Batch, Context
from distillery.objectives.build import build
from distillery.pipeline import check
from distillery.report import published
from distillery.report.published import Published
from distillery.study.blocks import Recipe
from distillery.study.model import Study, expand_seeds

FOLDER = ROOT / "workflow" / "studies"
SLOW = {"mobilenet_v2", "shufflenet_v1", "shufflenet_v2"}

# study: pairs, methods, jobs, runs
GRIDS = {
    "ls_rld": (14, 23, 322, 1610),
    "ls_rld_ofd": (11, 1, 11, 55),
    "ttm": (13, 15, 195, 975),
    "fixed": (17, 37, 629, 3145),
    "cifar100": (1, 22, 66, 66),
}
TUNED = ("ls_rld", "ttm", "cifar100")
every_study = pytest.mark.parametrize("name", GRIDS)


@cache
def load(name: str) -> Study:
    return check.load(FOLDER / f"{name}.yaml")


def hyper(name: str, method: str, pair: str) -> dict[str, Any]:
    return load(name).methods[method].for_pair(pair).hyper


def in_tables(paper: str, *tables: str) -> list[Published]:
    """The published numbers of some tables of one paper."""
    entries = chain.from_iterable(published.numbers("cifar100", "top1").values())
    return [e for e in entries if e.paper.startswith(paper) and e.table in tables]


LS = in_tables("arXiv:2403.01427", "Table 1 (different families)", "Table 2 (same family)")
RLD = in_tables("arXiv:2408.07703", "CIFAR-100 same family (partial)")
TTM = in_tables("arXiv:2402.11148", "Tables 1/2/6/11 (std from 11)", "Tables 3/4/12 (std from 12)")


@every_study
def test_the_grid_is_as_large_as_the_comments_say(name: str) -> None:
    study, text = load(name), (FOLDER / f"{name}.yaml").read_text()
    jobs = len(study.cells())
    assert (len(study.pairs), len(study.methods), jobs, len(study.runs())) == GRIDS[name]
    stated = re.search(r"(\d+) jobs", text) or re.search(r"(\d+) in all", text)
    assert int(stated[1]) == jobs if stated else jobs < 100
    assert all(len(expand_seeds(block)) == (1 if name == "cifar100" else 5) for block in study.seeds)
    assert text.startswith(f"# {name}: ")  # `distillery study` lists the first line


@every_study
def test_dvc_reads_what_we_read(name: str) -> None:
    """DVC parses YAML 1.2 and expands `${...}`: a study must mean the same to it, and needs no anchors."""
    text = (FOLDER / f"{name}.yaml").read_text()
    assert YAML(typ="safe").load(text) == yaml.safe_load(text)
    assert "${" not in text
    assert not [t for t in yaml.scan(text) if isinstance(t, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken))]


@every_study
def test_names_say_what_they_stand_for(name: str) -> None:
    study = load(name)
    for pair, spec in study.pairs.items():
        assert pair == f"{spec.teacher}-{spec.student}"
    assert all(teacher == spec.architecture for teacher, spec in study.teachers.items())
    assert set(study.teachers) == {spec.teacher for spec in study.pairs.values()}
    labels = [spec.label for spec in study.methods.values()]
    assert all(labels) and len(set(labels)) == len(labels)
    assert all(re.fullmatch(r"[a-z0-9_]+", method) for method in study.methods)
    how = ("train", "none") if name == "cifar100" else ("fetch", "train")
    assert all((spec.source, spec.fallback) == how for spec in study.teachers.values())


def test_the_pairs_are_those_of_the_tables() -> None:
    ls, rld, ttm = ({f"{e.teacher}-{e.student}" for e in entries} for entries in (LS, RLD, TTM))
    assert (len(ls), len(ttm)) == (14, 13)
    assert set(load("ls_rld").pairs) == ls
    assert set(load("ttm").pairs) == ttm
    assert set(load("fixed").pairs) == ls | ttm
    assert set(load("ls_rld_ofd").pairs) == {p for p in ls if "mobilenet" not in p}
    assert rld < ls


@pytest.mark.parametrize(
    ("name", "entries", "absent"),
    [("ls_rld", LS, {"ofd", "cat_kd"}), ("ls_rld", RLD, set()), ("ttm", TTM, {"wttm_without_ce"})],
)
def test_the_methods_are_those_of_the_tables(name: str, entries: list[Published], absent: set[str]) -> None:
    """All rows of the tables, but those that the head of the study says are left out."""
    ours = {published.method_name(spec) for spec in load(name).methods.values()}
    assert {e.method for e in entries} - {"teacher"} - ours == absent


@every_study
def test_every_cell_runs_the_protocol_of_the_tables(name: str) -> None:
    study = load(name)
    for pair, method, _ in study.cells():
        lr, epochs = 0.01 if study.pairs[pair].student in SLOW else 0.05, 240
        if study.methods[method].objective == "mlkd" and name == "ls_rld":
            lr = {"vgg13-vgg8": 0.01, "wrn_40_2-mobilenet_v2": 0.005}.get(pair, min(lr, 0.025))
            epochs = 960 if pair == "resnet32x4-shufflenet_v2" else 480
        expected = Recipe(epochs=epochs, lr=lr, tap_preacts=name.startswith("ls_rld"))
        assert study.recipe_for(pair, method) == expected, (pair, method)
    for teacher in study.teachers:
        assert study.recipe_for_teacher(teacher).updated({"tap_preacts": False}) == Recipe()
    assert "wrn_40_2" not in study.teachers or not study.recipe_for_teacher("wrn_40_2").tap_preacts
    assert study.tables.convention == ("best" if name.startswith("ls_rld") else "last")


def test_fixed_tunes_nothing_per_pair() -> None:
    assert all(not spec.pairs and not spec.recipe for spec in load("fixed").methods.values())


@pytest.mark.parametrize("name", TUNED)
def test_settings_are_those_of_the_ledger(name: str) -> None:
    """The settings that the ledger of published numbers holds for a cell are the cell's own."""
    study, held = load(name), 0
    lineages = ("mdistiller",) if name == "ls_rld" else ("mdistiller", "repdistiller")
    for pair, method, _ in study.cells():
        spec, names = study.methods[method].for_pair(pair), study.pairs[pair]
        key = (names.teachers[0], names.student, str(published.method_name(spec)))
        for entry in published.numbers("cifar100", "top1").get(key, ()):
            if entry.lineage not in lineages or entry.kind == "reproduction":
                continue
            values, recipe = published.settings("cifar100", entry)
            values = {k: v for k, v in values.items() if v is not None and k != "plus"}
            assert {k: spec.hyper.get(k) for k in values} == values, (pair, method)
            ours = study.recipe_for(pair, method).model_dump()
            assert {k: ours[k] for k in recipe} == recipe, (pair, method)
            held += len(values)
    assert held > 20


def test_settings_are_those_in_the_names_of_the_released_logs() -> None:
    """LS releases one log for each pair and method; base temperature, weight and beta are in its name, lr is inside."""
    with (golden.VECTORS / "settings" / "released_logs.csv").open() as file:
        logs = [log for log in csv.DictReader(file) if log["teacher"] != "resnet56_pycls"]
    seen = set()
    for log in logs:
        method, pair = log["method"].replace("+", "_"), f"{log['teacher']}-{log['student']}"
        temperature, weight = float(log["base_temp"]), float(log["kd_weight"])
        found = hyper("ls_rld", method, pair)
        assert found["t_start" if method == "ctkd_ls" else "temperature"] == temperature, log["log"]
        if method == "dkd_ls":
            named = re.search(r"dkd_beta_before_scaling=([\d.]+)", log["extra"])
            assert (found["alpha"], found["beta"]) == (weight, weight * float(named[1] if named else 8)), log["log"]
        else:
            assert (found["ce_weight"], found["kd_weight"]) == (0.1, weight), log["log"]
        recipe = load("ls_rld").recipe_for(pair, method)
        assert recipe.epochs == int(log["epochs"])
        if first := re.match(r"1:([\d.]+)", log["lr_schedule_logged"]):
            assert recipe.lr == pytest.approx(float(first[1]), abs=0.0051 if len(first[1]) < 5 else 1e-9), log["log"]
        seen.add((pair, method))
    assert len(seen) == 4 * 14 - 2  # two logs of MLKD + LS are missing


def test_settings_are_those_of_the_appendix_of_ttm() -> None:
    text = (golden.VECTORS / "settings" / "ttm_appendix.md").read_text()
    orders = re.findall(r"in the order ([^:]+):", text)
    assert len(orders) == 2  # same family, different families
    for method, label in {"ttm": "TTM", "wttm": "WTTM", "wttm_crd": "WTTM+CRD", "wttm_itrd": "WTTM+ITRD"}.items():
        rows = re.findall(rf"^  - {re.escape(label)}: (\(.*)$", text, flags=re.MULTILINE)
        for order, row in zip(orders, rows, strict=True):
            values = [(float(g), float(b)) for g, b in re.findall(r"\(([\d.]+), ([\d.]+)\)", row)]
            for short, (gamma, beta) in zip(order.split(", "), values, strict=True):
                teacher, student = short.split("->")
                if student.isdigit():  # resnet56->20
                    student = f"resnet{student}"
                found = hyper("ttm", method, f"{teacher}-{student}")
                assert (found["gamma"], found["beta"]) == (gamma, beta), (method, short)


@pytest.mark.parametrize(
    ("name", "method", "pair", "expected"),
    [
        ("ls_rld", "kd_ls", "resnet50-mobilenet_v2", {"temperature": 3, "kd_weight": 1}),
        ("ls_rld", "kd_ls", "resnet110-resnet20", {"temperature": 4, "kd_weight": 12}),
        ("ls_rld", "dkd_ls", "resnet56-resnet20", {"temperature": 3, "alpha": 18, "beta": 36}),
        ("ls_rld", "dkd_ls", "resnet32x4-wrn_40_2", {"temperature": 2, "alpha": 9, "beta": 72}),
        ("ls_rld", "dkd", "resnet110-resnet32", {"temperature": 4, "alpha": 1, "beta": 2}),
        ("ls_rld", "mlkd_ls", "resnet32x4-shufflenet_v2", {"temperature": 2, "kd_weight": 6}),
        ("ls_rld", "reviewkd", "resnet56-resnet20", {"feat_weight": 0.6}),
        ("ttm", "ttm", "wrn_40_2-wrn_16_2", {"gamma": 0.1, "beta": 101}),
        ("ttm", "wttm", "resnet32x4-shufflenet_v2", {"gamma": 0.4, "beta": 16}),
        ("ttm", "wttm_crd", "vgg13-vgg8", {"gamma": 0.2, "beta": 4}),
        ("ttm", "wttm_itrd", "resnet110-resnet32", {"gamma": 0.3, "beta": 0.015}),
        ("ttm", "itrd", "resnet50-vgg8", {"alpha": 1.5, "lambda_mutual": 0}),
        ("fixed", "dkd_ls", "resnet56-resnet20", {"temperature": 2, "alpha": 9, "beta": 72}),
        ("cifar100", "wttm_itrd", "resnet32x4-resnet8x4", {"gamma": 0.1, "beta": 1.5}),
    ],
)
def test_spot_rows(name: str, method: str, pair: str, expected: dict[str, float]) -> None:
    found = hyper(name, method, pair)
    assert {key: found[key] for key in expected} == expected


def test_itrd_is_set_the_same_alone_and_as_a_partner() -> None:
    for pair in load("ttm").pairs:
        partner = dict(load("ttm").methods["wttm_itrd"].for_pair(pair).plus["itrd"])
        assert partner.pop("weight") == 1
        assert partner | {"ce_weight": 1} == hyper("ttm", "itrd", pair)


@cache
def outputs(architecture: str, images: int) -> tuple[Network, Outputs]:
    """A network and its outputs for some images."""
    network = models.build(architecture, num_classes=100).eval()
    with torch.no_grad():
        return network, network(torch.linspace(-2, 2, images * 3072).view(images, 3, 32, 32), preacts=True)


@pytest.mark.slow
def test_every_cell_computes_its_loss_on_its_own_networks() -> None:
    """No method in a study is one that its pair's networks cannot run: found here, not hours into the study."""
    torch.manual_seed(0)
    labels, done = torch.arange(400) % 100, set()
    on_train = Outputs(torch.randn(400, 100), torch.randn(400, 8))
    for study, pair, method in ((s, p, m) for s in map(load, GRIDS) for p, m, _ in s.cells()):
        spec, names = study.methods[method].for_pair(pair), study.pairs[pair]
        if (key := (pair, spec.model_dump_json(exclude={"label", "recipe"}))) in done:
            continue
        done.add(key)
        (teacher, one), (_, two) = (outputs(names.teachers[0], images) for images in (1, 2))
        (_, student), (_, pupils) = (outputs(names.student, images) for images in (1, 2))
        objective = build(spec, Context(100, labels, student, one, teacher, lambda: on_train))
        batch = Batch(labels[:2], pupils, (two,), torch.tensor(20.0), torch.arange(2), pupils, two)
        assert torch.stack(list(objective(batch).values())).sum().isfinite(), (study.study, pair, method)
        if method == "wttm_crd":  # 0.8 times CRD's own loss, as tabulated, whichever key says so
            (weight,), (partner,) = objective.weights.values(), objective.partners.values()
            assert weight * partner.config.feat_weight == 0.8
