"""Augmentations in training and in a study: soft targets, resumption, refusals, view tables, code identity."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from augmenting import DEIT
from photographs import photographs
from small_study import STUDY, make, write
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.imaging.mixing import soft_targets
from distillery.objectives import OBJECTIVES
from distillery.objectives.base import Batch
from distillery.objectives.plugins import PLUGINS
from distillery.pipeline import fingerprint as code
from distillery.pipeline.check import check, rehearse
from distillery.pipeline.fingerprint import components, fingerprint
from distillery.pipeline.planner import resolve
from distillery.pipeline.users_files import named_files
from distillery.records.io import read_json
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import set_up
from distillery.training.loop import Preempted, fit

pytestmark = pytest.mark.slow

# --- in training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few() -> Dataset:
    facts: dict[str, Any] = {"class_names": tuple("abcde"), "scale": 255.0, "mean": (0.5,) * 3, "std": (0.3,) * 3}
    whole, labels = photographs(40)[..., :8, :8].contiguous(), torch.arange(40) % 5
    return Dataset(whole, labels, whole, labels, rows=torch.arange(40), **facts)


SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 0.01, "milestones": (), "label_smoothing": 0.1}


def train(data: Dataset, recipe: Recipe, at: int = 0, checkpoint: Checkpoint | None = None) -> tuple[Any, list[Batch]]:
    """The weights, and the batches that the loss has seen; with SIGTERM in step `at`."""
    set_up(recipe)
    trainee, seen = assemble("resnet8_w2", Method(objective="ce"), data, [], 0), []
    supervised = trainee.objective.supervised

    def noted(batch: Batch) -> dict[str, Tensor]:
        seen.append(batch)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return supervised(batch)

    trainee.objective.supervised = noted  # type: ignore[method-assign]
    fit(trainee, data.loader(recipe), None, recipe, 0, checkpoint)
    return [p.detach() for p in trainee.student.parameters()], seen


def test_training_sees_soft_targets_and_is_the_same_again(few: Dataset) -> None:
    recipe = Recipe(augmentation={"pad": 1, "flip": True, "then": DEIT}, **SHORT)
    (weights, seen), (again, _) = train(few, recipe), train(few, recipe)
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    for batch in seen:
        one, two = batch.targets, soft_targets(few.train_labels[batch.index], 5, 0.1)
        share = (one - two.flip(0)).norm(dim=1) / (two - two.flip(0)).norm(dim=1)
        share = share[~share.isnan() & ~share.isinf()]
        assert torch.allclose(share, share[0].expand_as(share), atol=1e-5)  # one share for the whole batch, smoothed
    plain = train(few, Recipe(augmentation={"pad": 1, "flip": True}, **SHORT))
    assert all(batch.targets.dtype == torch.int64 for batch in plain[1])
    assert [b.index.tolist() for b in plain[1]] == [b.index.tolist() for b in seen]  # in the same order
    assert not torch.equal(plain[0][0], weights[0])


@pytest.mark.parametrize("at", [2, 5])
def test_stopped_in_mid_epoch_a_run_ends_with_the_same_bits(few: Dataset, at: int, tmp_path: Path) -> None:
    recipe = Recipe(augmentation={"pad": 1, "flip": True, "then": DEIT}, **SHORT)
    weights, _ = train(few, recipe)
    with pytest.raises(Preempted):
        train(few, recipe, at, Checkpoint(tmp_path / "run.safetensors", "key"))
    resumed, seen = train(few, recipe, 0, Checkpoint(tmp_path / "run.safetensors", "key"))
    assert len(seen) == 6 - at
    assert all(torch.equal(a, b) for a, b in zip(weights, resumed, strict=True))


# --- in a study -------------------------------------------------------------------------------------------------------

OWN = """
from distillery.api import Augment, Share

class Dark(Augment):
    class Config(Augment.Config):
        prob: Share = 0.5

    config: Config

    def __call__(self, images, targets, draw):
        keep = draw.uniform() < self.config.prob
        return images * ~keep[:, None, None, None], targets

class Lost(Dark):
    def __call__(self, images, targets, draw):
        return images[1:], targets[1:]

class Failing(Dark):
    def __call__(self, images, targets, draw):
        raise ValueError("no such thing")
"""


def study(*then: dict[str, Any], source: str = "cifar100") -> dict[str, Any]:
    recipe = STUDY["recipe"] | {"augmentation": {"then": list(then)}}
    return STUDY | {"data": {"source": source}, "recipe": recipe, "methods": {"ce": {"objective": "ce"}}, "tables": {}}


def test_a_study_is_refused_for_what_its_augmentations_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    sentences = {
        "Lost": "teachers.t: augmentation makes torch.float32 images of (3, 3, 32, 32) with targets of (3,) out of "
        "(4, 3, 32, 32): it must keep their type and shape",
        "Failing": "teachers.t: augmentation raises ValueError: no such thing",
    }
    rehearse(check(study({"name": "own.py:Dark", "prob": 0.1})))
    for name, sentence in sentences.items():
        with pytest.raises(DistilleryError) as refused:
            rehearse(check(study({"name": f"own.py:{name}"})))
        assert str(refused.value) == f"params.yaml: {sentence}"
    with pytest.raises(DistilleryError, match=r"recipe.augmentation.then.0: unknown key 'p': known: prob"):
        check(study({"name": "own.py:Dark", "p": 1}))
    with pytest.raises(DistilleryError, match=r"three_augment works on .* have 1 of 0 to 16: drop it"):
        rehearse(check(study({"name": "three_augment"}, source="digits")))


ONE_CLASS = {"crd", "dkd", "ensemble", "label_revision", "mlkd", "rc", "rld", "staged"} | {
    "kd with revise",
    "kd with select",
    "kd with swap",
}
BLOCKS: dict[str, dict[str, Any]] = {name: {"objective": name} for name in OBJECTIVES}
BLOCKS |= {f"kd with {name}": {"objective": "kd", "plugins": {name: {}}} for name in PLUGINS}


@pytest.mark.parametrize("name", BLOCKS)
def test_methods_that_ask_for_one_class_are_refused_where_images_are_mixed(name: str) -> None:
    mixing = study({"name": "mixup"}) | {"methods": {"m": BLOCKS[name]}}
    mixing["teachers"] = {"t": {"architecture": "resnet8_w8", "recipe": {"augmentation": {"then": []}}}}
    if name in ("deit", "vkd_tokens"):  # for a student with tokens and a distillation head
        mixing["pairs"] = {"t-s": {"teacher": "t", "student": "deit_w48_p2"}}
    if name not in ONE_CLASS:
        rehearse(check(mixing))
        return
    with pytest.raises(
        DistilleryError,
        match=r"methods.m for t-s: (it asks for one class per image|a data selection chooses images), .* override",
    ):
        rehearse(check(mixing))
    rehearse(check(mixing | {"methods": {"m": BLOCKS[name] | {"recipe": {"augmentation": {"then": []}}}}}))


def test_jobs_depend_on_the_code_of_the_augmentations_that_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    checked = check(study({"name": "own.py:Dark"}, {"name": "mixup"}))
    assert Path("own.py") in named_files(checked)
    (distill,) = [job for job in resolve(checked) if job.stage == "distill"]
    used = [component.module for component in components("distill", distill.values)]
    assert {"own.py", "distillery.recipe.mixing"} <= {*used}
    assert "distillery.recipe.random_erasing" not in used
    before = fingerprint("distill", distill.values)
    for cached in (code._module, code._closure):
        cached.cache_clear()
    Path("own.py").write_text(OWN.replace("~keep", "keep"))
    assert fingerprint("distill", distill.values) != before


def test_a_view_table_is_not_made_where_images_are_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher runs live, and the records say why."""
    monkeypatch.chdir(tmp_path)
    recipe = STUDY["recipe"] | {"epochs": 1, "milestones": [], "augmentation": {"pad": 1, "flip": False}}
    erased = {"augmentation": {"pad": 1, "flip": False, "then": [{"name": "random_erasing"}]}}
    methods = {"kd": {"objective": "kd"}, "erased": {"objective": "kd", "recipe": erased}}
    write(STUDY | {"recipe": recipe, "methods": methods})
    make()
    said = {m: read_json(Path(f"artifacts/small/runs/t-s/{m}/0/runs.json"))["teacher_outputs"] for m in methods}
    assert said["kd"] == "view table"
    assert said["erased"] == "live teacher: what random_erasing makes of an image cannot be enumerated"
    write(STUDY | {"recipe": recipe | erased, "methods": methods})
    make()
    why = "what random_erasing makes of an image cannot be enumerated"
    assert read_json(Path("artifacts/small/cache/t/cache.json"))["live"] == why
