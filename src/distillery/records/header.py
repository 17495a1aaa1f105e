"""What a weights file says about itself, in its safetensors header: enough to use it where no study lies beside it.

Nothing of the code's identity is in it: two trainings that end with the same weights write the same bytes. The record
beside the file knows the code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from distillery.errors import DistilleryError
from distillery.records.io import read_metadata
from distillery.records.preprocessing import Preprocessing

if TYPE_CHECKING:
    from distillery.data.pictured import Pictured

FORMAT: Literal[1] = 1
KEY = "distillery"  # of the header's text among the metadata


class Header(BaseModel):
    """Facts about trained weights.

    Attributes:
        kind: "students" (of one block of seeds, keys `SEED.student.KEY`), "student" (one, exported, plain keys), or
            "teacher" (plain keys).
        study, pair, method, teacher: whose weights these are.
        seeds: which students are in the file; the teacher's seed.
        architecture: a name of `distillery.models`, or `path/to/file.py:Class`.
        class_names: name of every logit.
        image: channels, height, width of the images it was trained on.
        scale: pixel value of full brightness; `mean`, `std` per channel, in units of it.
        data: source and selection.
        train_images: how many images it was trained on.
        recipe: the training protocol; {} where the weights were fetched.
        objective: the method's block with every default; {} for a teacher.
        predicts: whether the objective takes part in the prediction. Then the file also holds its modules, the first
            teacher (`teacher.KEY`) and an `example` image, from which the objective is rebuilt.
        teachers: architecture of every teacher that took part, by name.
        preprocessing: of a teacher that sees images in its own normalisation or size, by its name.
        licence: of fetched weights, where it is stated.
        settings_sha256: hash of everything that was set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    kind: Literal["students", "student", "teacher"]
    study: str
    pair: str | None = None
    method: str | None = None
    teacher: str | None = None
    seeds: tuple[int, ...]
    architecture: str
    class_names: tuple[str, ...]
    image: tuple[int, int, int]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data: dict[str, Any]
    train_images: int
    recipe: dict[str, Any] = {}
    objective: dict[str, Any] = {}
    predicts: bool = False
    teachers: dict[str, str] = {}
    preprocessing: dict[str, Preprocessing] = {}
    licence: str | None = None
    settings_sha256: str

    @classmethod
    def of(cls, data: Pictured, **facts: Any) -> Header:
        """Take from a data set what it knows."""
        channels, height, width = data.example().shape[1:]
        return cls(
            class_names=data.class_names,
            image=(channels, height, width),
            scale=data.scale,
            mean=data.mean,
            std=data.std,
            data={key: data.facts[key] for key in ("source", "selection")},
            train_images=len(data.train_labels),
            **facts,
        )

    def metadata(self) -> dict[str, str]:
        """Return it as the metadata of a safetensors file."""
        return {"format": "pt", KEY: json.dumps(self.model_dump(mode="json"), sort_keys=True)}

    @classmethod
    def read(cls, path: Path) -> Header:
        """Read it from a weights file. Raises DistilleryError if the file is missing, damaged, or says nothing."""
        text = read_metadata(path).get(KEY)
        if text is None:
            raise DistilleryError(
                f"{path} does not say which network and which classes it holds, so it is of an older Distillery or of "
                "another program: run its stage again"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            raise DistilleryError(
                f"{path} was written by another version of Distillery: use that one, or run its stage again"
            ) from None

    @property
    def title(self) -> str:
        """Whose weights these are, in words."""
        if self.kind == "teacher":
            return f"teacher {self.teacher} of study {self.study}"
        return f"{self.pair} by {self.method} of study {self.study}"
