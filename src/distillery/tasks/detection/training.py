"""Training of detectors: how they are built, where their teachers come in, how they are tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillery.models import NETWORKS
from distillery.models.base import Network, anchor
from distillery.objectives.base import Context
from distillery.objectives.build import Loss
from distillery.objectives.build import needs as needs_of
from distillery.records.header import Header
from distillery.records.io import DistilleryError
from distillery.study.blocks import Method, Recipe
from distillery.tasks.detection import Detection
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.detections import Detector, Pictures
from distillery.tasks.detection.loader import BoxLoader
from distillery.tasks.detection.precision import average_precision
from distillery.tasks.detection.start import start_from
from distillery.tasks.detection.testing import detect
from distillery.tasks.detection.twins import Twins
from distillery.tasks.detection.views import fitted
from distillery.tasks.weights import filled
from distillery.teachers.source import LiveTeachers
from distillery.training.device import seeded
from distillery.training.parallel import ALONE, Ranks
from distillery.training.task import Training
from distillery.training.trainee import Trainee

if TYPE_CHECKING:
    from distillery.pipeline.job import Job
    from distillery.training.teaching import TeacherSource


class BoxTraining(Training):
    """Networks give `Detections`; targets are objects, (B, M, 9); a test is one pass over all images."""

    def test(self, trainee: Trainee, loader: BoxLoader, recipe: Recipe, ranks: Ranks = ALONE) -> dict[str, float]:  # type: ignore[override]
        """AP, AP50 and AP75 in percent."""
        record: dict[str, float] = {}
        for name, split in loader.splits().items():
            found = detect(trainee.student, split, recipe, ranks).numpy()
            main, _, _ = average_precision(found, split.of, loader.data.class_names)
            record |= {f"{name}_{measure}": value for measure, value in main.items()}
        return record

    def load(self, path: Path, sha256: str, recipe: Recipe, device: torch.device) -> BoxData:
        return BoxData.load(path).hold_out(recipe.validation).to(device)

    def loader(self, data: BoxData, recipe: Recipe) -> BoxLoader:
        return BoxLoader(data, recipe)

    def network(self, architecture: str, data: BoxData) -> Network:
        return build(architecture, data.num_classes)

    def trained(self, architecture: str, data: BoxData, path: Path) -> Network:
        return filled(self.network(architecture, data), architecture, path)

    def assemble(self, student: str, method: Method, data: BoxData, teachers: list[Network], seed: int) -> Trainee:
        with seeded(seed, "init"):
            network = self.network(student, data)
        if isinstance(self.task, Detection) and (start := self.task.config.start.get(student)):
            start_from(network, start)
        taught, example = teachers[0] if teachers else None, example_of(data)
        with torch.no_grad():
            mine = network.eval()(example)
            theirs = None
            if taught is not None:
                one = anchor(taught)
                theirs = taught.eval()(Pictures(example.images.to(one), example.padding.to(one.device)))
        with seeded(seed, "objective"):
            nobody = torch.zeros(0, dtype=torch.int64)
            objective = Loss(method).build(Context(data.num_classes, nobody, mine, theirs, taught))
        if getattr(objective, "inherits", False) and taught is not None:
            inherit(network, taught)
        return Trainee(network, objective, self)

    def teaching(
        self, job: Job, described: Mapping[str, Any], networks: list[Network], recipe: Recipe, data: BoxData
    ) -> tuple[TeacherSource | None, str]:
        """Always the live network: views cannot be enumerated, and its tokens are more than the images."""
        if not networks:
            return None, "none"
        if "strong" in needs_of(Method.model_validate(job.values["objective"])):
            [teacher, *_] = job.values["teachers"].values()
            data.twins = Twins(Path(teacher["table"]))
        return LiveTeachers(networks, recipe), "live teacher: views of images with boxes cannot be enumerated"

    def header(self, data: BoxData, **facts: Any) -> Header:
        return Header(
            class_names=data.class_names,
            image=(3, data.short_side, data.max_side),
            scale=255.0,
            mean=data.mean,
            std=data.std,
            data={key: data.facts[key] for key in ("source", "selection")},
            train_images=len(data.train),
            **facts,
        )


def build(architecture: str, classes: int) -> Detector:
    """Build a detector by name. Raises DistilleryError for a network that finds no objects."""
    found = NETWORKS[architecture]
    kind = found.load()
    if not issubclass(kind, Detector):
        raise DistilleryError(f"{architecture} finds no objects: take a detector, such as vidt_nano or retinanet_r50")
    made: Detector = kind(num_classes=classes, **found.options)
    return made


def example_of(data: BoxData) -> Pictures:
    """A black image of the size of the first test image, on the CPU: shapes are what counts."""
    size = fitted(data.test.size(0), data.short_side, data.max_side)
    return Pictures(torch.zeros(1, 3, *size), torch.zeros(1, *size, dtype=torch.bool))


@torch.no_grad()
def inherit(student: Network, teacher: Network) -> None:
    """Start a student's pyramid and heads from its teacher's weights, wherever both have one of the same shape."""
    own: dict[str, Tensor] = student.state_dict()
    theirs = teacher.state_dict()
    shared = [k for k in own if not k.startswith("body.") and k in theirs and own[k].shape == theirs[k].shape]
    if not shared:
        raise DistilleryError(
            "the student's pyramid and heads have other sizes than the teacher's: set `inherit: false`"
        )
    for key in shared:
        own[key].copy_(theirs[key])
