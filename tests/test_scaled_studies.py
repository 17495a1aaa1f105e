"""The scaled studies of ImageNet and vision transformers, from pieces of real photographs to the table, and killed."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_cifar100
import yaml
from conftest import ROOT
from PIL import Image
from sklearn.datasets import load_sample_images
from small_study import make, write
from spawned import exit_code

from distillery.pipeline import check
from distillery.pipeline.layout import Layout
from distillery.records.io import read_json, sha256_file
from distillery.training.history import load_history
from distillery.training.step import Step

WNIDS = ("n03877845", "n11939491")  # a palace and a daisy: what scikit-learn's two photographs show
TRAIN, TEST, HEIGHT, WIDTH = 10, 4, 72, 96


# With a second, strong view; its cross-entropy wants classes, so nothing is mixed.
MLKD = {"objective": "mlkd", "label": "MLKD", "recipe": {"augmentation": {"then": []}}}


def pieces(root: Path) -> None:
    """Cut both photographs up: fourteen files of each, train/ and val/."""
    for wnid, picture in zip(WNIDS, load_sample_images().images, strict=True):
        corners = [(y, x) for y in range(0, 427 - HEIGHT, HEIGHT) for x in range(0, 640 - WIDTH, WIDTH)]
        for i, (y, x) in enumerate(corners[: TRAIN + TEST]):
            path = root / ("train" if i < TRAIN else "val") / wnid / f"{wnid}_{i}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(picture[y : y + HEIGHT, x : x + WIDTH])).save(path, quality=90)


def small(name: str, methods: tuple[str, ...]) -> dict[str, Any]:
    """A scaled study as it ships, but for how long and from what it learns."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "workflow" / "studies" / f"{name}.yaml").read_text())
    params["recipe"] |= {"epochs": 2, "batch_size": 8, "test_every": 1}
    params["methods"] = {m: params["methods"].get(m, MLKD) for m in methods}
    params["tables"] = {"baseline": methods[0]}
    for teacher in params["teachers"].values():
        if teacher.get("source") != "fetch":
            teacher["recipe"] |= {"epochs": 1, "test_every": 1}
            teacher["recipe"].pop("milestones", None)
    if "milestones" in params["recipe"]:
        params["recipe"]["milestones"] = [1]
    return params


@pytest.mark.parametrize("name", ["scaled_imagenet_r34-r18", "scaled_vkd_deit", "scaled_ls_vit"])
def test_a_scaled_study_is_declared_as_the_whole_one(name: str) -> None:
    scaled, whole = (check.load(ROOT / "workflow" / "studies" / f"{n}.yaml") for n in (name, name[7:]))
    shared = scaled.methods.keys() & whole.methods.keys()
    assert len(shared) >= 2 and shared == scaled.methods.keys()
    for method in shared:
        assert scaled.methods[method].hyper == whole.methods[method].hyper
        assert scaled.methods[method].plugins == whole.methods[method].plugins
    text = (ROOT / "workflow" / "studies" / f"{name}.yaml").read_text()
    assert text.startswith(f"# {name}: ") and "core-minutes" in text
    assert scaled.recipe.ema and any(part.mixes for part in scaled.recipe.augmentations())


def _killed(step: int) -> None:
    """Make what is due in a process that is killed, without notice, in its so-manyth training step."""
    taken, call = 0, Step.__call__

    def counted(self: Step, *args: int) -> None:
        nonlocal taken
        taken += 1
        if taken == step:
            os.kill(os.getpid(), signal.SIGKILL)
        call(self, *args)

    Step.__call__ = counted  # type: ignore[method-assign]
    make()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "replayed", "live"),
    [
        ("scaled_imagenet_r34-r18", "kd", "mlkd"),
        ("scaled_vkd_deit", "kd", "vkd"),
        ("scaled_ls_vit", "kd_ls", None),
    ],
)
def test_a_scaled_study_from_images_to_table(
    name: str, replayed: str, live: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILLERY_WORKERS", "0")
    monkeypatch.setenv("DISTILLERY_CHECKPOINT_SECONDS", "0")
    params = small(name, (replayed, *([live] if live else [])))
    if name == "scaled_ls_vit":  # images that are drawn, and a teacher for six classes that is trained here
        options = small_cifar100.OPTIONS | {"mirror": str(small_cifar100.write_mirror(tmp_path / "mirror"))}
        params["data"] |= options | {"subset": {"train_per_class": 4, "test_per_class": 2}}
        params["pairs"] = {"resnet56-deit_ti": {"teacher": "resnet56", "student": "deit_ti_distilled"}}
        recipe = {"epochs": 2, "test_every": 2, "drop_path": None}
        params["teachers"] = {"resnet56": {"architecture": "resnet8", "recipe": recipe}}
    else:
        pieces(Path(params["data"]["root"]))
    write(params)
    at, [pair] = Layout(name), params["pairs"]
    assert make(tables=True)[-1] == "tables"
    why = "the strong view is in no table" if live == "mlkd" else "the method needs maps and tokens"
    for method, how in ((replayed, "replay table"), (live, f"live teacher: {why}")):
        if method:
            assert read_json(at.run_record(pair, method, "0"))["teacher_outputs"] == how
    history = load_history(at.history(pair, replayed, "0"))["0"]
    assert len(history) == 2 and all(np.isfinite(epoch["loss"]) for epoch in history)
    average = "average" if params["recipe"]["ema"].get("student") == "raw" else "raw"
    assert f"{average}_test_top1" in history[-1]
    table = (at.results / "table.md").read_text()
    assert all(spec["label"] in table for spec in params["methods"].values())

    whole = {method: sha256_file(at.students(pair, method, "0")) for method in params["methods"]}
    shutil.rmtree(at.runs(pair, replayed))
    shutil.rmtree(at.replayed(next(iter(params["teachers"]))))
    assert exit_code(_killed, 5) == -signal.SIGKILL  # in the second epoch
    assert [*at.artifacts.glob("checkpoints/**/*.safetensors")] and not at.students(pair, replayed, "0").exists()
    make()
    assert {method: sha256_file(at.students(pair, method, "0")) for method in params["methods"]} == whole
