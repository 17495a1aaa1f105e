"""What a report says in words, of data and of what methods are, whatever was measured."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distillery.data import SOURCES
from distillery.objectives import OBJECTIVES
from distillery.objectives.plugins import PLUGINS
from distillery.report import budget, glossary, story
from distillery.report.results import NO_IMAGES, Results
from distillery.study.blocks import Method, Recipe
from distillery.task import TASKS, task_of


def of_data(
    source: str, options: dict[str, Any], labelled: float = 1.0, task: str = "classification", **facts: Any
) -> Results:
    """Results of which only the data are known."""
    study = SimpleNamespace(data=SimpleNamespace(source=source, options=options, labelled=labelled))
    cell = SimpleNamespace(pair="p", facts={"data": facts})
    return Results(cast(Any, study), task_of({"name": task}), {("p", "m"): cast(Any, cell)})


def test_data_are_said_by_splits_then_by_what_else_was_counted() -> None:
    counts = {"test_crowds": 0, "test": 72, "train_objects": 2804, "train": 205, "train_dropped": 1}
    found = of_data("voc", {"root": "BCCD", "short_side": 128}, counts=counts, class_names=["a", "b"])
    said = "voc: 205 train, 72 test images, 1 train dropped, 2,804 train objects, 2 classes (short side 128)"
    assert story.data(found) == said
    unnamed = of_data("coco", {}, class_names=["", "a", "", "b"])
    assert story.data(unnamed) == "coco: 2 classes"
    subset = {"subset": {"train_per_class": 200, "classes": None}, "scales": [112, 128]}
    told = story.data(of_data("cifar100", subset, labelled=0.1))
    assert told == "cifar100 (subset train per class 200, scales 112 128, labels of 10 % of each class to train on)"


def test_settings_in_blocks_are_told_apart() -> None:
    assert budget.said({"classes": 2.0, "l1": 5.0, "giou": None}) == "(classes 2, l1 5)"
    operations = [{"name": "cutout", "size": 8, "prob": 0.5}, {"name": "mixup"}]
    assert budget.said(operations) == "cutout (size 8, prob 0.5) mixup"


@pytest.mark.parametrize(("source", "sample"), [("digits", "image"), ("adult", "row"), ("frames", "clip")])
def test_samples_are_called_what_they_are(source: str, sample: str) -> None:
    assert of_data(source, {}).sample == sample and all(name in SOURCES for name in NO_IMAGES)


@pytest.mark.parametrize("task", list(TASKS))
def test_a_student_alone_is_called_so(task: str) -> None:
    (part,) = glossary.parts(Method.model_validate({"objective": TASKS[task].load().plain}))
    assert "the student trained alone" in part.about


ADDRESS = re.compile(
    r"https://(arxiv\.org/abs/\d{4}\.\d{4,5}|doi\.org/10\.\d{4,}/\S+"
    r"|openaccess\.thecvf\.com/content(/\w+|_\w+)/html/\w[\w-]*_paper\.html)"
)
COMPONENTS = [*OBJECTIVES.names, *PLUGINS]


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_says_what_it_is(name: str) -> None:
    method = {"objective": name} if name in OBJECTIVES else {"objective": "kd", "plugins": {name: {}}}
    part = glossary.parts(Method.model_validate(method))[-1]
    assert len(part.about) > 15
    if part.link or name not in {TASKS[task].load().plain for task in TASKS}:  # a student alone needs no paper
        assert ADDRESS.fullmatch(part.link), part.link


def test_every_component_has_one_mark_and_none_is_left_of_what_is_gone() -> None:
    content = json.loads(glossary.FILE.read_text())
    marked = [name for names in content["basis"].values() for name in names]
    assert sorted(marked) == sorted(COMPONENTS) and {*content["links"]} <= {*COMPONENTS}


def test_several_classes_of_one_file_are_told_apart() -> None:
    names = ("fgd", "mgd", "vkd_detection", "unkd", "one_stratum")
    told = {n: glossary.parts(Method.model_validate({"objective": n}))[0] for n in names}
    assert told["fgd"].about.startswith("FGD: Yang") and told["fgd"].link == "https://arxiv.org/abs/2111.11837"
    assert told["mgd"].about.startswith("MGD: Yang") and told["mgd"].link == "https://arxiv.org/abs/2205.01529"
    assert told["vkd_detection"].link == "https://arxiv.org/abs/2403.06213"
    assert told["unkd"].about.startswith("UnKD: Chen") and told["one_stratum"].about.startswith("The control of UnKD")


def test_hidden_labels_are_said_of_the_data() -> None:
    """Of labels that training does not see no count of images tells."""
    found = of_data("cifar100", {}, labelled=0.1, counts={"train": 50, "test": 10}, class_names=["a", "b"])
    assert (
        story.data(found) == "cifar100: 50 train, 10 test images, 2 classes (labels of 10 % of each class to train on)"
    )


@pytest.mark.parametrize(
    ("source", "task", "said"),
    [
        ("cifar100", "classification", True),
        ("voc", "detection", False),
        ("streamed_folder", "classification", False),
    ],
)
def test_padding_is_said_only_of_images_that_are_padded(source: str, task: str, said: bool) -> None:
    found = of_data(source, {}, task=task, class_names=["a", "b"])
    one = {"pairs": ["pair"], "methods": ["method"], "recipe_for": lambda pair, method: Recipe()}
    found.study = cast(Any, SimpleNamespace(data=found.study.data, **one))
    assert ("crop padding 4" in story.protocol(found)) is said
    assert "flip on" in story.protocol(found)
