"""What a task declares, and what the report makes of a measure whose lower values are better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT
from synthetic_study import Synthetic, params

from distillery.errors import DistilleryError
from distillery.models.base import Outputs
from distillery.objectives.base import Batch, Context, Incompatible
from distillery.objectives.build import build
from distillery.objectives.kd import KD
from distillery.pipeline import fingerprint as code
from distillery.pipeline.check import check, rehearse
from distillery.report import table
from distillery.report.table import Table
from distillery.report.text import score_text
from distillery.study.blocks import Method
from distillery.task import TASKS, Column, Measure, task_of
from distillery.tasks.classification import Classification
from distillery.tasks.fairness import Fairness

LESS = Measure("top1", "a distance", higher_is_better=False, digits=1)


@pytest.mark.parametrize("name", list(TASKS))
def test_every_declaration_is_complete(name: str) -> None:
    task = task_of({"name": name})
    assert task.values() == {"name": name} | type(task).Config().effective()
    assert len({m.name for m in task.measures}) == len(task.measures) > 0
    for part in ("training", "evaluation", "cache", "rehearsal"):
        assert callable(task.part(part))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("clasification", "params.yaml: task: unknown task 'clasification': did you mean 'classification'?"),
        ({"name": "classification", "classes": 3}, "params.yaml: task: unknown key 'task.classes'"),
        ({"classes": 3}, "name the task, as in `task: {name: classification}`"),
    ],
)
def test_mistakes_in_the_block(block: object, said: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"task": block}
    with pytest.raises(DistilleryError) as refused:
        check(params)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_task_may_be_named_or_be_a_block() -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    written = [
        check(content | more).task for more in ({}, {"task": "classification"}, {"task": {"name": "classification"}})
    ]
    assert written == [{"name": "classification"}] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"source": "citeulike", "path": "x"}}, "data.source: citeulike is of the task ranking"),
        ({"methods": {"m": {"objective": "bpr"}}}, "methods.m.objective: bpr is of the task ranking"),
        ({"methods": {"m": {"objective": "kd", "plus": {"unkd": {}}}}}, "methods.m.plus: unkd is of the task ranking"),
        (
            {"pairs": {"p": {"teacher": "resnet20_w8", "student": "bprmf_d10"}}},
            "pairs.p.student: bprmf_d10 is of the task ranking",
        ),
        ({"task": "ranking"}, "data.source: digits has no pairs of users and items"),
    ],
)
def test_components_of_another_task_are_refused(change: dict[str, Any], said: str) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"tables": {}} | change
    with pytest.raises(DistilleryError) as refused:
        rehearse(check(content))
    assert said in str(refused.value)


def test_columns_are_found_by_their_path() -> None:
    run = {"last": {"top1": 3.0}, "fidelity": {"a": {"kl": 1.0}, "b": {"kl": 2.0}}, "nll": 0.5}
    found = [
        Column("x", "", path).of(run) for path in ("last.top1", "fidelity.*.kl", "nll", "nll.deep", "test_best.top1")
    ]
    assert found == [3.0, 1.0, 0.5, None, None]
    assert Column("x", "", "fidelity.*.kl").of({"fidelity": {}}) is None


def test_mixed_images_have_no_single_class() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    soft = torch.tensor([[0.7, 0.3, 0.0]]).expand(4, 3)
    rows = Batch(soft, Outputs(logits), (Outputs(logits.detach().roll(1, 0)),), torch.ones(()), torch.arange(4))
    objective = KD(Context(3, torch.arange(4) % 3, Outputs(logits[:1])))
    terms = objective(rows)
    assert terms["ce"].item() == pytest.approx(-0.1 * (soft * logits.log_softmax(1)).sum(1).mean().item(), rel=1e-6)
    with pytest.raises(Incompatible, match="one class per image"):
        _ = rows.labels
    revised = build(
        Method(objective="kd", plugins={"revise": {}}), Context(3, torch.arange(4) % 3, Outputs(logits[:1]))
    )
    with pytest.raises(Incompatible, match="one class per image"):
        revised(rows)
    assert torch.equal(rows.rows(torch.tensor([True, False, True, False])).targets, soft[:2])


def test_lower_may_be_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers under a measure of which less is better: what was better is worse, and the best is another."""
    monkeypatch.chdir(tmp_path)
    methods = {"ce": {"objective": "ce"}, "kd": {"objective": "kd"}}
    made = Synthetic(tmp_path, params(methods=methods, tables={"baseline": "ce"}))
    made.cell("a-b", "ce", "0-2", [70.0, 71.0, 70.5])
    made.cell("a-b", "kd", "0-2", [75.0, 75.75, 75.75])
    usual = table.build(made.results)
    monkeypatch.setattr(Classification, "measures", (LESS,))
    lower = table.build(made.results)
    (_, alone, kd), (_, alone_lower, kd_lower) = ([r.entries["a-b"] for r in t.rows] for t in (usual, lower))
    assert (kd.mark, kd_lower.mark) == ("better", "worse")
    assert (alone.best, kd.best, alone_lower.best, kd_lower.best) == (False, True, True, False)
    assert lower.title == "digits: a distance, the last epoch" and "lower is better" in lower.notes[0]
    assert score_text(kd_lower) == "75.5 ± 0.4" and Table.from_json(lower.to_json()) == lower


OWN = """
from distillery.api import Classification, Column

class Mine(Classification):
    columns = (Column("margin", "a margin", "margin"),)
"""


def codes(task: str) -> dict[str, str]:
    """Fingerprints of jobs of a task, from the files as they are now."""
    for cached in (code._module, code._closure):
        cached.cache_clear()
    told = {"task": {"name": task}, "student": "resnet8_w2", "teachers": {}, "objective": {"objective": "kd"}}
    return {stage: code.fingerprint(stage, told | {"recipe": {}}) for stage in ("distill", "evaluate", "tables")}


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [stage for stage in before if after[stage] != before[stage]]


def test_a_declaration_of_ones_own_counts_in_the_tables(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    before = codes(f"{file}:Mine")
    file.write_text(OWN.replace("a margin", "the margin"))
    assert changed(before, codes(f"{file}:Mine")) == ["tables"]


@pytest.mark.parametrize("file", ["task.py", "tasks/fairness/__init__.py", "tasks/fairness/sections.py"])
def test_declarations_and_sections_count_in_the_tables(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, parsed, edited = codes("fairness"), code.parsed, code.PACKAGE / file

    def changed_there(path: Path, name: str) -> tuple[str, frozenset[str], list[Path]]:
        digest, imported, read = parsed(path, name)
        return "edited" if path == edited else digest, imported, read

    with monkeypatch.context() as patch:
        patch.setattr(code, "parsed", changed_there)
        assert changed(before, codes("fairness")) == ["tables"]
    assert codes("fairness") == before


def test_which_epoch_is_best_counts_where_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = codes("fairness")
    monkeypatch.setattr(Fairness, "measures", (LESS,))
    assert changed(before, codes("fairness")) == ["evaluate"]
