"""The gate for fetched teachers: is this network as good as its release says? Asked before anything is distilled.

It is tested as it was when its accuracy was published: on the data's test images, normalised, resized and cut as its
weights saw them (of photographs in a blob; arrays have one size, from which it makes its own), with all its classes.
What it scores when it sees as students do, and is left the data's classes alone, is another number, and in the record
too.

Where the data hold only a part of the test images that the accuracy was published on, no tenth of a point can be told
apart: the record and the log then say that nothing was decided, and on how many images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.data.photo_set import PhotoSet
from distillery.data.pictured import Pictured
from distillery.errors import DistilleryError
from distillery.records.preprocessing import Preprocessing
from distillery.task import TOP1, Measure
from distillery.teachers.released import Source, is_remote

PASSED, PART, NOTHING = "as published", "not decided: a part of the test images", "nothing published"
UNTESTED = "not tested: it does not do this task by itself"
SYNSETS = Path(__file__).with_name("imagenet_synsets.json")


def measure_of(scores: Mapping[str, float], measures: Sequence[Measure]) -> Measure | None:
    """What a teacher is held to, of a task's measures: a percentage, as published numbers are; None if none was tested.

    A classifier that teaches another kind of student is held to its accuracy.

    Args:
        scores: of a test, `test_NAME` for a measure.
    """
    tested = [m for m in (*measures, TOP1) if f"test_{m.name}" in scores]
    return next((m for m in tested if m.unit == "%"), tested[0] if tested else None)


def judge(teacher: str, url: str, measure: Measure, measured: float, images: int, source: Source) -> dict[str, Any]:
    """Hold a measured score to the published one; return what the record says about that, the score by its name.

    One image may always differ: of few test images it is more than the tolerance.

    Args:
        measured: on `images` test images.

    Raises:
        DistilleryError: if it is missed on all the images that it was published on.
    """
    found = {measure.name: measured, "images": images, "published_on": source.whole or images}
    if source.accuracy is None:
        return found | {"verdict": NOTHING}
    found["published"] = source.accuracy
    if source.whole is not None and images != source.whole:
        return found | {"verdict": PART}
    tolerance = max(source.tolerance, 100 / images)
    if abs(measured - source.accuracy) > tolerance + 1e-6:
        raise DistilleryError(
            f"teacher {teacher} from {url} reaches a {measure.label} of {_shown(measured, measure)}, more than "
            f"{tolerance:.2g} points from the {_shown(source.accuracy, measure)} that it should: "
            f"{'take another mirror, ' if is_remote(url) else ''}correct `teachers.{teacher}.accuracy` if this is "
            f"another teacher, or `teachers.{teacher}.preprocessing` if it saw other images"
        )
    return found | {"verdict": PASSED, "tolerance": tolerance}


def in_words(found: Mapping[str, Any], measure: Measure | None) -> str:
    """What `judge` found, as a clause for the log."""
    if measure is None:
        return str(found["verdict"])
    published = "nothing" if "published" not in found else _shown(found["published"], measure)
    said = f"{measure.label} {_shown(found[measure.name], measure)} measured, {published} published"
    if found["verdict"] == PART:
        said += f", and that on {found['published_on']:,} images of which {found['images']:,} are here: nothing decided"
    return said


def _shown(value: float, measure: Measure) -> str:
    return f"{value:.{measure.digits}f}" + (f" {measure.unit}" if measure.unit else "")


def as_it_sees(data: Any, own: Preprocessing | None) -> Any:
    """The data as released weights were tested on them, where images can be cut anew; else as they are."""
    return data.seen_by(own) if own and isinstance(data, PhotoSet) else data


@cache
def imagenet_classes() -> tuple[str, ...]:
    """WordNet ids of the 1,000 classes of ImageNet-1k (ILSVRC 2012), in the order of the logits of released weights."""
    import json

    return tuple(json.loads(SYNSETS.read_text(encoding="utf-8")))


def places_of(classes: Sequence[str], among: Sequence[str]) -> Tensor:
    """Which of `among` each class is, (C,) int64. Raises DistilleryError for one that is none of them."""
    numbers = {name: i for i, name in enumerate(among)}
    if strange := [name for name in classes if name not in numbers]:
        raise DistilleryError(
            f"the class {strange[0]!r} is none of ImageNet's 1,000, which are called by WordNet ids (n01440764): with "
            "`classes: imagenet` call the folders of classes so"
        )
    return torch.tensor([numbers[name] for name in classes])


def renumbered(data: Pictured, among: Sequence[str]) -> Pictured:
    """The same test images, with classes numbered as in `among`. What is trained on keeps its numbers: only to test."""
    numbers = places_of(data.class_names, among)
    if isinstance(data, Dataset):
        labels = numbers.to(data.test_labels.device)[data.test_labels]
        return dataclasses.replace(data, test_labels=labels, class_names=tuple(among))
    test = dataclasses.replace(data.test, labels=numbers.numpy()[data.test.labels])
    return dataclasses.replace(data, test=test, class_names=tuple(among))


def narrowed(weights: Mapping[str, Tensor], like: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The weights of a network with the given classes: of its classifiers these rows, of all else everything.

    Its softmax is then the wide network's, given that the image is of one of these classes.

    Args:
        like: a state dict of the same network with another number of classes, which tells classifiers from all else.
    """
    rows = rows.to(next(iter(weights.values())).device)
    return {key: value if value.shape == like[key].shape else value[rows] for key, value in weights.items()}
