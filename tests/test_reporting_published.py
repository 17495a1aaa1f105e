"""Published numbers: none is lost, each has a source, and a verdict is given only where like is compared with like."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import pytest
import yaml
from conftest import ROOT
from rich.console import Console
from scipy import stats
from synthetic_study import Synthetic

from distillery.evaluation.statistics import Summary
from distillery.models import NETWORKS
from distillery.pipeline import check
from distillery.pipeline.layout import Layout
from distillery.report import ledger, published, table, terminal
from distillery.report.ledger import Comparison
from distillery.report.protocol import PROTOCOLS, differences, hyper_parameters
from distillery.report.published import Published, method_name, numbers, settings
from distillery.report.sections.published import tally_text
from distillery.report.text import MINUS
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification import Classification

TOP1 = Classification.measures[0]


def test_every_fact_of_the_reference_is_there(shared_dir: Path) -> None:
    facts = yaml.load((shared_dir / "reference" / "published.yaml").read_text(), Loader=yaml.CSafeLoader)["results"]
    facts = [f for f in facts if f["metric"] == "top1"]
    assert len(facts) > 1000
    for fact in facts:
        found = published.numbers(fact["dataset"], "top1")[fact["teacher"], fact["student"], fact["method"]]
        source = tuple(fact[k] for k in ("paper", "table", "kind", "report", "lineage", "source"))
        same = [(p.value, p.sd) for p in found if (p.paper, p.table, p.kind, p.report, p.lineage, p.source) == source]
        assert (fact["value"], fact.get("std")) in same
    total = sum(len(p) for d in {f["dataset"] for f in facts} for p in published.numbers(d, "top1").values())
    # And both accuracies of every released log, and those of ImageNet that the reference page names as missing in it.
    assert total == len(facts) + 2 * 61 + 19


def test_every_released_log_is_there() -> None:
    with (golden.VECTORS / "settings" / "released_logs.csv").open() as file:
        logs = list(csv.DictReader(file))
    for log in logs:
        found = published.numbers("cifar100", "top1")[log["teacher"], log["student"], log["method"]]
        values = {(p.report, p.value) for p in found if p.table.startswith("released training logs")}
        assert {("best", float(log["best_test_acc"])), ("last", float(log["last_test_acc"]))} <= values


def test_the_file_is_small_and_sourced() -> None:
    assert published.FILE.stat().st_size < 200_000
    numbers = [p for found in published.numbers("cifar100", "top1").values() for p in found]
    assert all(p.source and p.paper and p.table for p in numbers)
    students = {p.student for p in numbers if p.lineage == "mdistiller"}
    assert students <= set(NETWORKS)  # our networks go by the same names


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ({"objective": "ce"}, "student_ce"),
        ({"objective": "kd"}, "kd"),
        ({"objective": "kd", "plugins": {"standardise": {}}}, "kd+ls"),
        ({"objective": "wttm", "plus": {"crd": {"weight": 0.8}}}, "wttm+crd"),
        ({"objective": "label_revision"}, "lr"),
        ({"objective": "kd", "plugins": {"swap": {}}}, "swap(la)"),
        ({"objective": "vkd_tokens"}, "vkd"),
        ({"objective": "deit"}, "deit"),
        ({"objective": "deit", "kind": "soft", "plugins": {"standardise": {}}}, "kd+ls"),
        ({"objective": "dkd", "plugins": {"swap": {}}}, None),
        ({"objective": "kd", "plugins": {"revise": {}, "standardise": {}}}, None),
    ],
)
def test_method_blocks_have_published_names(block: dict[str, Any], name: str | None) -> None:
    assert published.method_name(Method.model_validate(block)) == name


@pytest.mark.parametrize(
    ("dataset", "teacher", "student", "method", "value"),
    [
        ("imagenet", "imagenet_resnet34", "imagenet_resnet18", "kd", 71.37),
        ("imagenet", "torchvision/resnet50", "mobilenet_v1", "teacher", 76.13),
        ("imagenet", "imagenet_resnet34", "imagenet_resnet18", "student_ce", 69.758),
        ("imagenet", "timm/regnety_160.deit_in1k", "vkd_deit_ti", "vkd", 79.2),
        ("imagenet", "timm/regnety_160.sw_in12k_ft_in1k", "vkd_deit_s", "vkd", 82.3),
        ("imagenet", "timm/regnety_160.deit_in1k", "deit_ti_distilled", "deit", 74.5),
        ("cifar100", "resnet56", "deit_ti_distilled", "kd+ls", 78.55),
        ("cifar100", "resnet56", "pit_ti", "student_ce", 73.58),
        ("cifar100", "resnet56", "resnet20", "kd", 70.66),
    ],
)
def test_networks_have_published_names(dataset: str, teacher: str, student: str, method: str, value: float) -> None:
    assert value in {entry.value for entry in published.of_pair(dataset, "top1", teacher, student, method)}


def number(**changes: Any) -> Published:
    base = Published(
        paper="P", table="T", source="S", lineage="repdistiller", kind="own", report="last",
        teacher="resnet56", student="resnet20", method="kd", value=70.66,
    )  # fmt: skip
    return replace(base, **changes)


def verdict(ours: Summary, entry: Published) -> str | None:
    return ledger._verdict(ours.mean, entry.value, ledger.interval(ours, entry, TOP1))


def test_verdict_without_a_published_spread_is_a_prediction_interval() -> None:
    ours = Summary(71.0, 0.2, 5, 0.25)
    bound = stats.t.ppf(0.975, 4) * 0.2 * (1 / 5 + 1) ** 0.5
    assert verdict(ours, number(value=71.0 - bound)) == "agrees"
    assert verdict(ours, number(value=71.0 - bound - 0.01)) == "above"
    assert verdict(ours, number(value=71.0 + bound + 0.01)) == "below"
    tighter = stats.t.ppf(0.975, 4) * 0.2 * (1 / 5 + 1 / 4) ** 0.5  # the mean of four trials scatters less
    assert verdict(ours, number(value=71.0 - tighter - 0.01, trials=4)) == "above"


def test_verdict_with_a_published_spread_is_welchs() -> None:
    ours, theirs = [71.0, 71.3, 70.8], number(value=70.66, sd=0.24, trials=5)
    summary = Summary(sum(ours) / 3, float(stats.tstd(ours)), 3, None)
    p = stats.ttest_ind_from_stats(summary.mean, summary.sd, 3, 70.66, 0.24, 5, equal_var=False).pvalue
    assert p > 0.05
    assert verdict(summary, theirs) == "agrees"
    p = stats.ttest_ind_from_stats(summary.mean, summary.sd, 3, 70.3, 0.24, 5, equal_var=False).pvalue
    assert p < 0.05
    assert verdict(summary, replace(theirs, value=70.3)) == "above"


def test_a_number_of_one_decimal_may_be_rounded_by_more() -> None:
    vkd = numbers("imagenet", "top1")["regnety_160", "deit_ti", "vkd"][0]
    crd = numbers("cifar100", "top1")["wrn_40_2", "wrn_16_2", "ab"][0]
    assert (vkd.value, vkd.digits, crd.value, crd.digits) == (78.3, 1, 72.5, 2)
    ours = Summary(71.0, 0.2, 5, 0.25)
    bound = stats.t.ppf(0.975, 4) * 0.2 * (1 / 5 + 1) ** 0.5
    assert verdict(ours, number(value=71.0 - bound - 0.04)) == "above"
    assert verdict(ours, number(value=71.0 - bound - 0.04, digits=1)) == "agrees"


def test_one_run_needs_a_published_spread() -> None:
    one = Summary(71.0, None, 1, None)
    assert verdict(one, number()) is None
    assert verdict(one, number(sd=0.24, trials=5)) == "agrees"
    assert verdict(one, number(value=69.0, sd=0.24, trials=5)) == "above"


def test_equal_runs_are_no_spread() -> None:
    """Equal accuracies are a coincidence of the grid: half a unit of the last digit would be the whole interval."""
    equal = Summary(71.0, 0.0, 3, 0.0)
    assert verdict(equal, number(value=70.99)) is None and verdict(equal, number(value=70.0)) is None
    assert verdict(equal, number(value=70.9, sd=0.24, trials=5)) == "agrees"


PAIR = "resnet56-resnet20"


@pytest.fixture
def synthetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synthetic:
    """A CIFAR-100 study by the published protocol: KD near its published 70.66 (last epoch), and the student alone."""
    monkeypatch.chdir(tmp_path)
    content = {
        "study": "cifar",
        "data": {"source": "cifar100"},
        "recipe": Recipe().model_dump(mode="json"),
        "teachers": {"resnet56": {"architecture": "resnet56"}},
        "pairs": {PAIR: {"teacher": "resnet56", "student": "resnet20"}},
        "methods": {"ce": {"objective": "ce"}, "kd": {"objective": "kd"}},
        "seeds": ["0-2"],
        "cache": {},
        "tables": {"baseline": "ce"},
    }
    made = Synthetic(tmp_path, content)
    made.teacher_accuracy = 72.25
    made.cell(PAIR, "ce", "0-2", [69.0, 69.25, 68.75])
    made.cell(PAIR, "kd", "0-2", [70.5, 70.75, 71.0])
    return made


def comparisons(made: Synthetic, method: str, **filters: str) -> list[Comparison]:
    found = ledger.ledger(made.results)
    return [
        c
        for c in found
        if c.method == method and all(getattr(c.published, k).startswith(v) for k, v in filters.items())
    ]


def test_like_is_compared_with_like(synthetic: Synthetic) -> None:
    (crd,) = comparisons(synthetic, "kd", paper="arXiv:1910.10699")
    assert (crd.verdict, crd.convention, crd.published.value) == ("agrees", "last", 70.66)
    assert (crd.mean, crd.n) == (70.75, 3)
    assert crd.difference == pytest.approx(0.09)
    assert crd.interval == pytest.approx(ledger.interval(Summary(crd.mean, crd.sd, crd.n, None), crd.published, TOP1))
    (alone,) = comparisons(synthetic, "ce", paper="arXiv:1910.10699")
    assert (alone.verdict, alone.published.value) == ("agrees", 69.06)
    quoted = comparisons(synthetic, "kd", kind="quoted")
    assert quoted
    assert {(c.verdict, c.interval) for c in quoted} == {("not comparable", None)}
    assert "quoted from earlier work" in quoted[0].reason


def test_a_better_student_is_above(synthetic: Synthetic) -> None:
    synthetic.cell(PAIR, "kd", "0-2", [72.5, 72.75, 73.0])
    (crd,) = comparisons(synthetic, "kd", paper="arXiv:1910.10699")
    assert crd.verdict == "above"


def test_a_verdict_names_an_unusual_precision(synthetic: Synthetic) -> None:
    """Published numbers are of float32, with torch's own choice of TF32: those two are like to like."""
    recipe = Recipe().model_dump(mode="json")
    for said, facts in {
        "": {"precision": "tf32"},
        "ours in bfloat16, compiled": {"precision": "bfloat16", "compile": True},
    }.items():
        found = changed(synthetic, "kd", recipe=recipe | facts)
        assert found.verdict == changed(synthetic, "kd").verdict != "not comparable"
        assert found.reason == said


def changed(made: Synthetic, method: str, **facts: Any) -> Comparison:
    made.cell(PAIR, method, "0-2", [70.5, 70.75, 71.0], **facts)
    (crd,) = comparisons(made, method, paper="arXiv:1910.10699")
    return crd


def test_what_is_not_like_is_not_compared_and_says_why(synthetic: Synthetic) -> None:
    recipe = Recipe().model_dump(mode="json")
    cases = {
        "epochs 30 instead of 240": {"recipe": recipe | {"epochs": 30}},
        "augmentation (crop padding 4, flip off) instead of (crop padding 4, flip on)": {
            "recipe": recipe | {"augmentation": {"pad": 4, "flip": False}}
        },
        "milestones 20 40 instead of 150 180 210": {"recipe": recipe | {"milestones": [20, 40]}},
        "validation 0.1 instead of 0": {"recipe": recipe | {"validation": 0.1}},
        "optimizer adamw instead of sgd": {"recipe": Recipe(optimizer={"name": "adamw"}).effective()},
        "label_smoothing 0.1 instead of 0": {"recipe": recipe | {"label_smoothing": 0.1}},
        "temperature 10 instead of 4": {"objective": {"objective": "kd", "temperature": 10.0}},
        "not the full data set": {"data": {"source": "cifar100", "counts": {"train": 5000, "test": 1000}}},
    }
    for reason, facts in cases.items():
        found = changed(synthetic, "kd", **facts)
        assert (found.verdict, found.reason) == ("not comparable", reason)
    alone = changed(synthetic, "ce", objective={"objective": "ce", "ce_weight": 0.2})
    assert (alone.verdict, alone.reason) == ("not comparable", "ce_weight 0.2 instead of 1")
    synthetic.teacher_accuracy = 75.0
    assert changed(synthetic, "kd").reason == "another teacher (75.00 % instead of 72.34 %)"
    assert changed(synthetic, "ce").verdict != "not comparable"  # the student alone has no teacher


def test_students_that_saw_a_part_of_the_labels_are_not_compared(synthetic: Synthetic) -> None:
    """The counts of the data are those of all images; labels are hidden in training alone."""
    synthetic.write_params(synthetic.content | {"data": {"source": "cifar100", "labelled": 0.1}})
    for method in ("ce", "kd"):
        found = changed(synthetic, method)
        assert (found.verdict, found.reason) == ("not comparable", "labels of 10 % only")


@pytest.mark.parametrize(
    ("std", "reason"), [("unbiased", ""), ("biased", "standardise.std biased instead of unbiased")]
)
def test_the_settings_of_plug_ins_are_compared(synthetic: Synthetic, std: str, reason: str) -> None:
    ls: dict[str, Any] = {"objective": "kd", "temperature": 2.0, "ce_weight": 0.1, "kd_weight": 9.0}
    ls["plugins"] = {"standardise": {"std": std}}
    synthetic.write_params(synthetic.content | {"methods": {"ce": {"objective": "ce"}, "ls": ls}})
    synthetic.cell(PAIR, "ls", "0-2", [71.0, 71.25, 71.5])
    found = comparisons(synthetic, "ls", kind="own")
    assert found and {c.reason for c in found} == {reason}
    assert {c.verdict == "not comparable" for c in found} == {bool(reason)}


def test_a_number_of_unknown_convention_needs_the_same_verdict_under_both(synthetic: Synthetic) -> None:
    cell = synthetic.results.cells[PAIR, "kd"]  # last 70.75, best 71.00, sd 0.25
    assert ledger.compare(cell, number(report="unknown", value=70.9)).verdict == "agrees"
    assert ledger.compare(cell, number(report="unknown", value=75.0)).verdict == "below"
    between = ledger.compare(cell, number(report="unknown", value=72.1))
    assert between.verdict == "not comparable"
    assert "last or the best epoch, and that decides" in between.reason


def test_another_study_has_nothing_to_compare(synthetic: Synthetic) -> None:
    digits = {"source": "digits", "counts": {"train": 899, "test": 898}}
    for method in ("ce", "kd"):
        synthetic.cell(PAIR, method, "0-2", [70.5, 70.75, 71.0], data=digits)
    assert ledger.ledger(synthetic.results) == []


def test_imagenet_has_a_protocol_of_its_own(synthetic: Synthetic) -> None:
    """mdistiller's: 100 epochs at batch 512, and torchdistill's at 256; how images are cropped is not compared."""
    recipe = {"epochs": 100, "batch_size": 512, "lr": 0.2, "weight_decay": 1e-4, "milestones": [30, 60, 90]}
    facts = {
        "data": {"source": "imagenet", "counts": {"train": 1_281_167, "test": 50_000}},
        "recipe": Recipe.model_validate(recipe | {"augmentation": {"pad": 0}}).model_dump(mode="json"),
        "objective": {"objective": "kd", "temperature": 1.0, "ce_weight": 0.5, "kd_weight": 0.5},
    }
    synthetic.teacher_accuracy = 73.3
    synthetic.cell(PAIR, "kd", "0-2", [70.5, 70.75, 71.0], **facts)
    cell = synthetic.results.cells[PAIR, "kd"]
    pair = {"teacher": "resnet34", "student": "resnet18", "value": 70.66}
    assert ledger.compare(cell, number(lineage="mdistiller", **pair)).verdict == "agrees"
    other = ledger.compare(cell, number(lineage="torchdistill", **pair))
    assert other.reason == "batch_size 512 instead of 256; lr 0.2 instead of 0.1"
    crd = ledger.compare(cell, number(lineage="mdistiller", **pair | {"method": "crd"}))
    assert crd.reason.startswith("batch_size 512 instead of 256; lr 0.2 instead of 0.1")
    assert ledger.compare(cell, number(lineage="fkd", **pair)).reason == "another protocol (fkd)"


def test_the_ledger_is_written_and_printed(synthetic: Synthetic) -> None:
    synthetic.tables()
    files = Layout("cifar").result_files()
    lines = list(csv.DictReader(files["ledger"].read_text().splitlines()))
    assert {line["verdict"] for line in lines} >= {"agrees", "not comparable"}
    assert all(line["reason"] for line in lines if line["verdict"] == "not comparable")
    assert "### Against published numbers" in files["markdown"].read_text()
    console = Console(width=200, record=True, file=io.StringIO())
    terminal.compare(synthetic.study, "", console=console)
    text = console.export_text()
    assert f"{len(lines)} published numbers for 2 cells: " in text
    assert "arXiv:1910.10699 (CRD), README table 1" in text
    judged = [c for method in ("kd", "ce") for c in comparisons(synthetic, method) if c.interval is not None]
    assert judged and [float(line["interval"]) for line in lines if line["interval"]] == pytest.approx(
        [c.interval for c in sorted(judged, key=lambda c: c.method)], rel=1e-5
    )
    assert all(f"{c.difference:+.2f} ± {c.interval:.2f}".replace("-", MINUS) in text for c in judged)
    assert "That is not equality" in text and "That is not equality" in files["markdown"].read_text()


def test_one_number_is_one_number(synthetic: Synthetic) -> None:
    main = table.build(synthetic.results)
    agreeing = next(c for c in main.published if c.verdict == "agrees")
    assert tally_text(replace(main, published=(agreeing,))) == (
        "1 published number for 1 cell: 1 comparable (agree: 1, exceeded: 0, not reached: 0), 0 not comparable. "
        "Cells that agree with every number: 1 of 1 compared."
    )


def test_a_narrow_terminal_cuts_no_verdict(synthetic: Synthetic) -> None:
    synthetic.tables()
    console = Console(width=80, record=True, file=io.StringIO())
    terminal.compare(synthetic.study, "", True, console)
    text = console.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    found = ledger.ledger(synthetic.results)
    for name in ("agrees", "not comparable"):
        count = sum(c.verdict == name for c in found)
        assert count and len(re.findall(f"│ {name} +│", text)) == count


def test_the_figure_shows_what_was_compared(synthetic: Synthetic) -> None:
    synthetic.tables()
    text = (Layout("cifar").figures / "published.svg").read_text()
    assert "agrees" in text
    assert "published top-1, %" in text


def test_the_default_recipe_is_the_published_protocol() -> None:
    from distillery.report.protocol import RECIPE

    ours = Recipe().model_dump(mode="json")
    assert {key: ours[key] for key in RECIPE} == RECIPE


def test_the_published_file_is_read_where_it_is_installed() -> None:
    assert published.FILE.is_relative_to(ROOT / "src")


@pytest.mark.parametrize("dataset", ["cifar100", "imagenet"])
def test_every_own_number_of_ttm_has_its_setting(dataset: str) -> None:
    """Its weights are chosen for every pair: no default is the published one."""
    found = [e for (*_, method), es in numbers(dataset, "top1").items() if method in ("ttm", "wttm") for e in es]
    found = [e for e in found if e.kind == "own" and e.lineage in PROTOCOLS[dataset].lineages]
    assert found and not [e for e in found if not {"gamma", "beta"} <= settings(dataset, e)[0].keys()]


@pytest.mark.parametrize(("study", "lineage"), [("ttm", "repdistiller"), ("ls_rld", "mdistiller")])
def test_the_papers_studies_use_the_published_settings(study: str, lineage: str) -> None:
    """No cell of the ready-made studies is "not comparable" for its hyper-parameters."""
    loaded = check.load(ROOT / "workflow" / "studies" / f"{study}.yaml")
    known, compared = numbers("cifar100", "top1"), 0
    for pair, spec in loaded.pairs.items():
        for method in (m.for_pair(pair) for m in loaded.methods.values()):
            name = method_name(method)
            for entry in known.get((spec.teachers[0], spec.student, name or ""), ()):
                values, _ = settings("cifar100", entry)
                theirs = hyper_parameters({"objective": method.objective} | values)
                if entry.lineage == lineage and values:
                    assert differences(hyper_parameters(method.model_dump()), theirs) == [], (pair, name, entry.table)
                    compared += 1
    assert compared > 100


@pytest.mark.parametrize(("study", "methods"), [("imagenet_r34-r18", 8), ("imagenet_r50-mobilenet", 8)])
def test_the_studies_of_imagenet_use_the_published_settings(study: str, methods: int) -> None:
    """Hyper-parameters and recipe of every method that mdistiller, a fork of it or its authors' own code prints."""
    own = {"wttm": "torchdistill", "dist": "image_classification_sota"}
    loaded, compared = check.load(ROOT / "workflow" / "studies" / f"{study}.yaml"), set()
    ((pair, spec),) = loaded.pairs.items()
    teacher = loaded.teachers[spec.teachers[0]].architecture
    for label, method in loaded.methods.items():
        name = method_name(method)
        for entry in published.of_pair("imagenet", "top1", teacher, spec.student, name or ""):
            values, recipe = settings("imagenet", entry)
            if entry.lineage == own.get(name or "", "mdistiller") and (values or recipe):
                theirs = hyper_parameters({"objective": method.objective} | values)
                assert differences(hyper_parameters(method.model_dump()), theirs) == [], (name, entry.table)
                ours, expected = loaded.recipe_for(pair, label), PROTOCOLS["imagenet"].of(entry) | recipe
                for key in ("batch_size", "lr", "nesterov", "decay"):
                    assert getattr(ours, key) == expected.get(key, getattr(Recipe(), key)), (name, entry.table)
                compared.add(name)
    assert len(compared) >= methods
