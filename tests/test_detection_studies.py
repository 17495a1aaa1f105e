"""The studies of detectors: valid, of the size that they say, with the published settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from distillery.objectives.build import Loss
from distillery.pipeline import check, planner, users_files
from distillery.study.blocks import Method
from distillery.study.model import Study
from distillery.task import task_of

# name: pairs, methods, runs
GRIDS = {"bccd": (1, 3, 9), "coco256": (1, 3, 9), "vidt_coco": (2, 3, 18), "ikd_coco": (1, 5, 15)}


def load(name: str) -> Study:
    return check.load(ROOT / f"workflow/studies/{name}.yaml")


@pytest.mark.parametrize("name", GRIDS)
def test_the_studies_are_valid(name: str) -> None:
    study = load(name)
    assert (len(study.pairs), len(study.methods), len(study.runs())) == GRIDS[name]
    text = (ROOT / f"workflow/studies/{name}.yaml").read_text()
    assert text.startswith(f"# {name}: ") and max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "_" in n else ()) for n in GRIDS])
def test_their_networks_and_methods_fit(name: str) -> None:
    study = load(name)
    assert task_of(study.task).part("rehearsal")(study, False) == []


def test_published_settings() -> None:
    vidt, ikd = load("vidt_coco"), load("ikd_coco")
    assert (vidt.recipe.epochs, vidt.recipe.lr, vidt.recipe.clip) == (50, 1e-4, 0.1)
    assert vidt.data.options["scales"] == list(range(480, 801, 16)) and vidt.data.options["crop"] == {}
    for method in ("vkd", "token_matching"):
        config = Loss(vidt.methods[method]).main[1]
        assert config.weight == 4.0 and config.losses.values() == (2.0, 5.0, 2.0) == config.matching.values()
    assert (ikd.recipe.epochs, ikd.recipe.lr, ikd.recipe.clip, ikd.recipe.milestones) == (24, 0.01, 35.0, (16, 22))
    config = Loss(ikd.methods["fgd_ikd"]).main[1]
    assert (config.until, config.weight, config.gap, config.inherit) == (16, 1e-5, "mse", True)
    fgd = Loss(ikd.methods["fgd"]).main[1]
    assert (fgd.temperature, fgd.objects, fgd.background, fgd.attentions, fgd.relation) == (0.5, 1e-3, 5e-4, 5e-4, 5e-6)
    [gated] = ikd.recipe_for("rx101-r50", "mgd_ikd").augmentations()
    assert (gated.config.prob, gated.config.small, gated.config.crop, gated.config.until) == (0.3, 1024.0, 0.8, 16)


@pytest.mark.parametrize(
    ("objective", "partner", "fits"),
    [
        ("vkd_detection", "kd", False),
        ("detect", "ce", False),
        ("vkd_detection", "detect", False),
        ("detect", "vkd_detection", True),
    ],
)
def test_partners_distil_into_detectors(objective: str, partner: str, fits: bool) -> None:
    """Others would compare classes with boxes, or add nothing, without a word."""
    methods = {"m": Method(objective=objective, plus={partner: {}})}
    study = load("bccd").model_copy(update={"methods": methods})
    said = task_of(study.task).part("rehearsal")(study, False)
    wrong = f"methods.m: plus.{partner}: distils nothing into a detector: take one that does, such as fgd"
    assert said == ([] if fits else [wrong])


def test_the_file_that_a_body_starts_from_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In what trains a network of that architecture, by its content; a study without such a file says nothing of it."""
    study = load("vidt_coco")
    monkeypatch.chdir(tmp_path)
    start = study.task["start"]["vidt_nano"]["path"]

    def told() -> dict[str, dict[str, Any]]:
        return {job.name: job.values for job in planner.resolve(study)}

    before = told()
    Path(start).parent.mkdir(parents=True)
    Path(start).write_text("weights")
    after = told()
    due = {name for name in after if after[name] != before[name]}
    nano = {
        job.name for job in planner.resolve(study) if job.stage == "distill" and job.values["student"] == "vidt_nano"
    }
    assert due == nano and Path(start) in users_files.named_files(study)
    assert not any("start" in values for values in (job.values for job in planner.resolve(load("bccd"))))
