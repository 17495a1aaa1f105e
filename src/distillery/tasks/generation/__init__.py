"""The task `generation`: classes in, images out; distilled is the discriminator that a generator learns from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from distillery.config import Config as BaseConfig
from distillery.config import Count
from distillery.task import Column, Measure, Task

_HERE = "distillery.tasks.generation"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Inception(BaseConfig):
    """The Inception network of 2015, in the file of torch-fidelity (pt_inception-2015-12-05-6726825d.pth)."""

    weights: str
    """Path of the file. It is never downloaded."""
    sha256: Sha256
    """Of the file."""


class Classifier(BaseConfig):
    """A classifier that Distillery has trained, in whose pooled features images are compared."""

    architecture: str
    """Names the measure too: `fd_resnet20`."""
    weights: str
    """Path of a teacher's `model.safetensors`, of another study."""
    sha256: Sha256
    """Of the file."""


FID = Measure("fid", "Frechet inception distance", higher_is_better=False, short="FID")
IS = Measure("is", "Inception score", short="IS")


class Generation(Task):
    """A generator is judged by the distance of its images to real ones: lower is better.

    The main measure is FID where an Inception file is named, else the Frechet distance in a classifier's features,
    which is called by that classifier's name and is no FID.
    """

    class Config(Task.Config):
        """Keys of the `task:` block besides `name`."""

        idle = MappingProxyType({"fraction_seed": ({"fraction": 1},)})

        fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
        """Of the training images; the others are withheld from everything that is trained. Drawn without replacement
        and not by class, as KD-DLGAN's code does."""
        fraction_seed: Annotated[int, Field(ge=0)] = 0
        """Of that draw (`numpy.random.RandomState`)."""
        samples: Annotated[int, Field(ge=2)] = 10000
        """Images that are generated for each test; the same noise and classes for every run and epoch."""
        sampling: Literal["batch", "running"] = "batch"
        """How the generator normalises when it is tested: by the statistics of the 50 images that it makes at a time,
        as the released code does, or by running means."""
        reference: Literal["test", "train"] = "test"
        """The real images that are compared with: the test images, as released, or the training images."""
        classifier: Classifier | None = None
        """Whose features the Frechet distance is taken in."""
        inception: Inception | None = None
        """For FID and Inception score."""
        trained_on: str | None = None
        """What a fetched teacher was trained on: a data source, such as cifar10. Declared by whoever names the file."""
        teacher_classes: Count | None = None
        """How many classes a fetched teacher tells apart, where it is not as many as the data have."""

    measures: tuple[Measure, ...] = (FID, IS)  # type: ignore[misc]  # what is measured is the study's choice
    columns = (
        Column(
            "conditional", "generated images that the classifier takes for their class, %", "conditional", shown=True
        ),
        Column("spread", "variance of generated features over that of real ones; 0: collapsed", "spread", shown=True),
    )
    plain = "gan"
    parts: ClassVar[Mapping[str, str]] = {
        "training": f"{_HERE}.training:GenTraining",
        "evaluation": f"{_HERE}.evaluation:GenEvaluation",
        "cache": "distillery.tasks.plain:keep_nothing",  # what a teacher sees is generated in every step
        "rehearsal": f"{_HERE}.rehearsal:rehearse",
    }
    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        measures: tuple[Measure, ...] = (FID, IS) if self.config.inception else ()
        if self.config.classifier:
            name = self.config.classifier.architecture
            label = f"Frechet distance in the features of {name}"
            measures += (Measure(f"fd_{name}", label, higher_is_better=False, digits=3),)
        self.measures = measures or type(self).measures
