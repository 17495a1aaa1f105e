"""`augmentation.view_seed`: all runs see the same views, in orders of their own, and share what a teacher says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_study import STUDY

from distillery.data import prepare
from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.pipeline import check
from distillery.study.blocks import Augmentation, Recipe
from distillery.teachers.replay import Plan
from distillery.teachers.replayed import Replayed


def test_arrays_too_are_seen_in_the_views_of_that_seed(tmp_path: Path) -> None:
    prepare("digits", {}, tmp_path / "arrays")
    data = Dataset.load(tmp_path / "arrays")
    for view_seed, same in ((None, False), (0, True), (7, True)):
        loader = data.loader(Recipe(augmentation={"pad": 1, "view_seed": view_seed}))
        epochs = [loader.epoch(seed, 3) for seed in (1, 2)]
        views = [epoch.view[epoch.index.argsort()] for epoch in epochs]
        assert torch.equal(*views) == same
        assert not torch.equal(epochs[0].index, epochs[1].index)
        strong = [loader.epoch(seed, 3, strong=True) for seed in (1, 2)]
        assert torch.equal(*(epoch.strong[epoch.index.argsort()] for epoch in strong)) == same


def test_what_is_not_said_leaves_the_identity_of_older_studies() -> None:
    assert Augmentation().model_dump() == {"pad": 4, "flip": True}
    said = Augmentation(view_seed=0, scale=(0.5, 1), flip=False).model_dump(mode="json")
    assert said == {"pad": 4, "flip": False, "scale": [0.5, 1.0], "view_seed": 0}
    for wrong in ({"scale": (0.9, 0.5)}, {"scale": (0, 1)}, {"ratio": (2, 1)}, {"view_seed": -1}):
        with pytest.raises(ValueError, match=r"greater than|comes first"):
            Augmentation(**wrong)


@pytest.mark.parametrize(
    ("augmentation", "shared"),
    [({}, False), ({"view_seed": 4}, True), ({"view_seed": 4, "then": [{"name": "mixup"}]}, False)],
)
def test_one_table_serves_all_seeds_unless_images_are_mixed(augmentation: dict[str, object], shared: bool) -> None:
    recipe = Recipe(augmentation=augmentation)
    source = Replayed([], [Path("replayed")], [Plan("key", 10, 2)], lambda: pytest.fail("nothing is built"), recipe)
    assert (source._of_run(0, 1) == source._of_run(0, 2)) == shared


def test_a_part_of_an_image_is_for_streams_only() -> None:
    said = STUDY["recipe"]["augmentation"] | {"scale": [0.5, 1.0]}
    study = check.check(STUDY | {"recipe": STUDY["recipe"] | {"augmentation": said}})
    with pytest.raises(DistilleryError, match=r"augmentation\.scale: has no effect: only of streamed images"):
        check.rehearse(study)
