"""The task `detection`: images in, boxes with a class and a score out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import Field

from distillery.config import Config as BaseConfig
from distillery.config import Count, Share, Weight
from distillery.task import Column, Measure, Section, Task

_HERE = "distillery.tasks.detection"


class Attack(BaseConfig):
    """How adversarial twins of the training images are made, once for every teacher (IKD): DI-MI-FGSM."""

    idle = MappingProxyType({"resize": ({"diversity": 0},), "momentum": ({"steps": 1},)})

    eps: Share = 8 / 255
    """Most that a pixel changes, of the widest range that a channel of the normalised image has."""
    alpha: Share = 2 / 255
    """Of one step, likewise."""
    steps: Count = 5
    momentum: Weight = 1.0
    """Share of the last gradient that is added to the next one."""
    resize: Share = 0.9
    """Least share of its width to which an image is shrunk before it is padded again."""
    diversity: Share = 0.5
    """Probability of that in a step."""


class Start(BaseConfig):
    """Weights that the body of a network starts from."""

    path: str
    """A checkpoint: of Swin for `vidt_*`, of a ResNet for `retinanet_*`, with the released names."""
    sha256: str | None = None
    """Of the file, or its first digits."""


class Detection(Task):
    """Object detection, judged by COCO's average precision in percent."""

    class Config(Task.Config):
        """Keys of the `task:` block besides `name`."""

        adversarial: Attack | None = None
        """Make adversarial twins of the training images for every teacher, which methods like `ikd` need."""
        start: dict[str, Start] = Field(default_factory=dict)
        """By architecture: what its body starts from, in students and in teachers that are trained here."""

    measures = (
        Measure("ap", "test AP", unit="%", short="AP"),
        Measure("ap50", "test AP at IoU 0.5", unit="%", short="AP50"),
        Measure("ap75", "test AP at IoU 0.75", unit="%", short="AP75"),
    )
    columns = (
        Column("ap_small", "AP of small objects, below 32 x 32 pixels", "sizes.ap_small", shown=True),
        Column("ap_medium", "AP of medium objects", "sizes.ap_medium", shown=True),
        Column("ap_large", "AP of large objects, from 96 x 96 pixels on", "sizes.ap_large", shown=True),
        # with the first teacher, which is the only one
        Column(
            "agreement",
            "share of the objects found by the teacher that are found too",
            "fidelity.*.agreement",
            shown=True,
        ),
    )
    plain = "detect"
    padded = False  # `data.scales` and `data.crop` say how images are seen
    parts: ClassVar[Mapping[str, str]] = {
        "training": f"{_HERE}.training:BoxTraining",
        "evaluation": f"{_HERE}.evaluation:BoxEvaluation",
        "cache": f"{_HERE}.cache:run",
        "rehearsal": f"{_HERE}.rehearsal:rehearse",
        "export": f"{_HERE}.export:export",
    }
    config: Config

    def files(self, architecture: str) -> list[Path]:
        """What `start` names for it."""
        return [Path(self.config.start[architecture].path).expanduser()] if architecture in self.config.start else []

    def sections(self, cells: Iterable[Any]) -> list[Section]:
        """AP of every class."""
        from distillery.tasks.detection.sections import by_class

        return by_class(list(cells))
