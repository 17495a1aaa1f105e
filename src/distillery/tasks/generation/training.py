"""Training of discriminators and generators: how they are built, whom they learn from, how they are tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from distillery import models
from distillery.data.dataset import Dataset
from distillery.data.resident import Resident
from distillery.errors import DistilleryError
from distillery.models import NETWORKS
from distillery.models.base import Network, Outputs, anchor
from distillery.objectives.base import Context
from distillery.objectives.build import Loss
from distillery.objectives.ce import CE
from distillery.records.header import Header
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import ClassTraining
from distillery.tasks.generation import Generation
from distillery.tasks.generation.biggan import Discriminator, Generator, Shown
from distillery.tasks.generation.clip import CLIP
from distillery.tasks.generation.data import bright, load
from distillery.tasks.generation.distance import Judge
from distillery.tasks.generation.objectives.base import GameContext, Seen, Wanted
from distillery.tasks.generation.teaching import ShownTeachers
from distillery.tasks.weights import filled
from distillery.teachers.weights import load_network
from distillery.training.device import seeded
from distillery.training.parallel import ALONE, Ranks
from distillery.training.task import Training
from distillery.training.trainee import Trainee

if TYPE_CHECKING:
    from distillery.pipeline.job import Job
    from distillery.training.teaching import TeacherSource


def kind_of(architecture: str) -> type:
    """The class of a network."""
    found: type = NETWORKS[architecture].get()
    return found


class TeacherTraining(ClassTraining):
    """Training and testing of a teacher: a classifier of the same images, by its accuracy.

    One that tells other classes apart, and CLIP, are not tested: nothing is known that they should say.
    """

    def __init__(self, task: Generation, tested: bool) -> None:
        super().__init__(task)
        self.tested = tested

    def test(self, trainee: Trainee, loader: Any, recipe: Recipe, ranks: Ranks = ALONE) -> dict[str, float]:
        return super().test(trainee, loader, recipe, ranks) if self.tested else {}


class GenTraining(Training):
    """The student is a discriminator; what is tested are images of the generator's average."""

    task: Generation

    def __init__(self, task: Any = None) -> None:
        super().__init__(task)
        self._judge: Judge | None = None

    # --- asked by the fit loop

    def seen(self, prediction: Seen, targets: Tensor) -> dict[str, Tensor]:
        """How many images the discriminator took for what they are, and the generator's loss."""
        fake, real = prediction.scores.detach().chunk(2)
        return {
            "real_right": (real > 0).sum() * 100,
            "fake_right": (fake < 0).sum() * 100,
            "generator": prediction.generator * len(real),
        }

    def test(self, trainee: Trainee, loader: Any, recipe: Recipe, ranks: Ranks = ALONE) -> dict[str, float]:
        config = self.task.config
        images, labels = trainee.objective.predict(Wanted(config.samples, config.sampling == "batch"))  # type: ignore[arg-type]
        found, more = self.judge(loader.data)(images, labels)
        return {f"test_{name}": v for name, v in (found | more).items() if v is not None}

    def judge(self, data: Dataset) -> Judge:
        """What compares images with the real ones of the data."""
        if self._judge is None:
            real = data.train_images if self.task.config.reference == "train" else data.test_images
            self._judge = Judge(self.task, bright(real, data.scale).cpu(), data.class_names, real.device)
        return self._judge

    # --- asked by the stages

    def load(self, path: Path, sha256: str, recipe: Recipe, device: torch.device) -> Dataset:
        return load(path, sha256, self.task.config.fraction, self.task.config.fraction_seed, device)

    def loader(self, data: Dataset, recipe: Recipe) -> Resident:
        if Ranks.launched().size > 1:
            raise DistilleryError("generators train in one process: start the stage without torchrun")
        return data.loader(recipe)

    def network(self, architecture: str, data: Dataset) -> Network:
        kind = kind_of(architecture)
        known = None if issubclass(kind, Discriminator | CLIP) else self.task.config.teacher_classes
        return models.build(architecture, known or data.num_classes, data.channels)

    def trained(self, architecture: str, data: Dataset, path: Path) -> Network:
        if not issubclass(kind_of(architecture), Discriminator):
            known = None if issubclass(kind_of(architecture), CLIP) else self.task.config.teacher_classes
            return load_network(architecture, known or data.num_classes, data.channels, path)
        return filled(self.network(architecture, data), architecture, path)

    def assemble(self, student: str, method: Method, data: Dataset, teachers: list[Network], seed: int) -> Trainee:
        """A discriminator, and the objective that owns its generator; or a classifier, where a teacher is trained."""
        if not issubclass(kind_of(student), Discriminator):
            return self._teacher(student, data, seed)
        with seeded(seed, "init"):
            network = cast(Discriminator, self.network(student, data))
        size = data.train_images.shape[-1]
        with seeded(seed, "generator"):
            generator = Generator(data.num_classes, data.channels, size, network.width)
        with seeded(seed, "objective"):
            objective = Loss(method).build(self._context(data, network, generator, teachers, seed))
        return Trainee(network, objective, self)

    def _teacher(self, architecture: str, data: Dataset, seed: int) -> Trainee:
        known = self.task.config.teacher_classes
        tested = not issubclass(kind_of(architecture), CLIP) and known in (None, data.num_classes)
        with seeded(seed, "init"):
            network = self.network(architecture, data)
        objective = CE(Context(data.num_classes, data.train_labels, Outputs(torch.empty(1, data.num_classes))))
        return Trainee(network, objective, TeacherTraining(self.task, tested))

    @torch.no_grad()
    def _context(
        self, data: Dataset, student: Discriminator, generator: Generator, teachers: list[Network], seed: int
    ) -> GameContext:
        shown = Shown(data.normalise(data.example()).cpu(), data.test_labels[:1].cpu())
        taught = None
        if teachers:
            weight = anchor(teachers[0])
            source = ShownTeachers(teachers[:1], Recipe(), data.mean, data.std)
            (taught,) = source.teach(Shown(shown.images.to(weight), shown.labels), [])
        return GameContext(
            data.num_classes,
            data.train_labels,
            student.eval()(shown),
            taught,
            teachers[0] if teachers else None,
            generator=generator,
            discriminator=student,
            seed=seed,
            mean=data.mean,
            std=data.std,
        )

    def teaching(
        self, job: Job, described: Mapping[str, Any], networks: list[Network], recipe: Recipe, data: Dataset
    ) -> tuple[TeacherSource | None, str]:
        """Live teachers: what they see is generated in every step."""
        if not networks:
            return None, "none"
        return ShownTeachers(networks, recipe, data.mean, data.std), "live teacher: it sees generated images"

    def header(self, data: Dataset, **facts: Any) -> Header:
        found = Header.of(data, **facts)
        known = self.task.config.teacher_classes
        if facts["kind"] == "teacher" and known not in (None, data.num_classes):
            return found.model_copy(update={"class_names": ()})  # the names of its classes are not known here
        return found
