"""The study: `params.yaml` as frozen, validated objects. Nothing here imports torch, so that every engine may parse it.

Unknown keys are refused with the nearest known name (`check.py`).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
)

from distillery.config import Positive
from distillery.records.io import DistilleryError
from distillery.records.preprocessing import Preprocessing
from distillery.study.blocks import Block, Cache, Method, Name, Recipe

TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # directions of text: Unicode's classes


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("64 hexadecimal digits (0 to 9, a to f)")
    return text


class Data(Block):
    """Where the images come from: the name of a source in `distillery.data` and that source's options.

    `labelled` is the share of each class's training images whose label training sees, chosen by a fixed seed, at least
    one of each. Teachers, and students of methods that cannot learn from an image without a label, train on these alone
    (`Objective.unlabelled`). Tests see all labels.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    source: str
    labelled: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def hidden(self) -> dict[str, float]:
        """What the spec of a job that trains says about labels: nothing where all are seen."""
        return {"labelled": self.labelled} if self.labelled < 1 else {}

    @model_serializer(mode="wrap")
    def _only_what_acts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `labelled` where it hides nothing: it is younger than the first studies, whose identity stays."""
        return {k: v for k, v in dump(self).items() if k != "labelled" or v < 1}


class Teacher(Block):
    """One teacher: trained here by the recipe, fetched from a released checkpoint, or a student of another study.

    `urls` are mirrors in order of preference: web addresses, local files or folders, each holding the checkpoint itself
    or an archive with it as `member`. `sha256` is that of either file. `accuracy` is the published one, in percent: a
    fetched teacher that misses it by more than 0.1 points, seeing the test images in its own way, is refused. For the
    teachers in `teachers/released.py` all of
    these may be left out. `fallback` says what to do when every mirror fails. `weights` names one place instead of
    `urls`: a file, an address, a name of torchvision's or timm's (IMAGENET1K_V1, deit_in1k), of which `urls` may then
    be copies, or `hf-hub:OWNER/NAME`.
    `preprocessing` is what a fetched network sees: `own`, what it or its weights carry, if anything (the default);
    `data`, what students see; or a block of mean, std, size, short_side, interpolation. With `classes: imagenet` the
    weights tell all 1,000 classes of ImageNet apart, of which the data have some, called by their WordNet ids; the
    network is tested as it is, and then keeps the outputs of the data's classes. A student is named by its `study`,
    `pair`, `method` and `seed`.
    """

    architecture: str
    source: Literal["train", "fetch", "student"] = "train"
    seed: int = 0
    recipe: dict[str, Any] = Field(default_factory=dict)
    urls: tuple[str, ...] = ()
    weights: str | None = None
    preprocessing: Annotated[
        Annotated[Literal["own", "data"], Tag("word")] | Annotated[Preprocessing, Tag("block")],
        Discriminator(lambda value: "block" if isinstance(value, dict | Preprocessing) else "word"),
    ] = "own"
    classes: Literal["data", "imagenet"] = "data"
    member: str | None = None
    sha256: Annotated[str, AfterValidator(_sha256)] | None = None
    accuracy: float | None = Field(None, gt=0, le=100)
    fallback: Literal["none", "train"] = "none"
    study: Name | None = None
    pair: Name | None = None
    method: Name | None = None


MOST_SEEDS = 10_000  # of a block: more were never meant


class Pair(Block):
    """Teacher (or teachers, for ensemble distillation) and student architecture."""

    teacher: Name | Annotated[tuple[Name, ...], Field(min_length=1)]
    student: str
    recipe: dict[str, Any] = Field(default_factory=dict)

    @property
    def teachers(self) -> tuple[str, ...]:
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher


class Tables(Block):
    """What the result tables show.

    `resolve` is a difference from the baseline, in the main measure's unit: a note says how many seeds would show it.
    Left out, it is half a point where that unit is percent; elsewhere there is no such note. `pictures: false` leaves
    out figures with test images in them, where these may not be passed on.
    """

    convention: Literal["last", "best"] = "last"
    baseline: str | None = None
    resolve: Positive | None = None
    pictures: bool = True


class Study(Block):
    """A whole study. `distillery.pipeline.check.load` reads and checks it."""

    study: Name
    task: dict[str, Any] = Field(default_factory=lambda: {"name": "classification"})
    data: Data
    recipe: Recipe = Recipe()
    teachers: dict[Name, Teacher]
    pairs: dict[Name, Pair] = Field(min_length=1)
    methods: dict[Name, Method] = Field(min_length=1)
    seeds: tuple[int | str, ...] = Field(min_length=1)
    # Students of a block of seeds, side by side in one process: to the same bits. Each takes two of torch's 32 streams.
    at_once: int = Field(1, ge=1, le=16)
    # Which of a CPU's instructions are used: all, or what nearly every x86-64 of ten years has, for the same bits.
    instructions: Literal["native", "avx2"] = "native"
    cache: Cache = Cache()
    tables: Tables = Tables()

    @field_validator("task", mode="before")
    @classmethod
    def _named(cls, task: Any) -> Any:
        if isinstance(task, dict) and not isinstance(task.get("name"), str):
            raise ValueError("name the task, as in `task: {name: classification}`")
        return {"name": task} if isinstance(task, str) else task

    @field_validator("seeds", mode="before")
    @classmethod
    def _one_entry(cls, seeds: Any) -> Any:
        return [seeds] if type(seeds) in (int, str) else seeds  # `seeds: 5` and `seeds: 0-2` are one entry

    @property
    def portable(self) -> dict[str, str]:
        """What the spec of a job that computes says about instructions: nothing where all are used."""
        return {"instructions": self.instructions} if self.instructions != "native" else {}

    def recipe_for_teacher(self, teacher: str) -> Recipe:
        return self.recipe.updated(self.teachers[teacher].recipe)

    def recipe_for(self, pair: str, method: str) -> Recipe:
        """The student's recipe: study, then pair, then method, then the method's block for this pair."""
        return self.recipe.updated(self.pairs[pair].recipe, *self.methods[method].recipes(pair))

    def label(self, method: str) -> str:
        """A method's label on one line, without control characters.

        They would end a table's row, spoil a figure, or turn the numbers beside the label around.
        """
        text = " ".join((self.methods[method].label or method).split())
        return "".join(c for c in text if unicodedata.category(c) != "Cc" and unicodedata.bidirectional(c) not in TURNS)

    def cells(self) -> list[tuple[str, str, str]]:
        """All (pair, method, seeds) jobs, in the order of params.yaml. One job trains one block of seeds."""
        return [(p, m, str(s)) for p in self.pairs for m in self.methods for s in self.seeds]

    def runs(self) -> list[tuple[str, str, int]]:
        """All (pair, method, seed) runs."""
        return [(p, m, seed) for p, m, block in self.cells() for seed in expand_seeds(block)]


def expand_seeds(block: int | str) -> tuple[int, ...]:
    """Return the seeds of a block: 3 or "3" is one seed, "0-4" is five. Raises DistilleryError if it is neither."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(block))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if first > last:
        raise DistilleryError(f"seeds: {block!r} is neither a seed (0) nor a block of seeds (0-4)")
    if (count := last - first + 1) > MOST_SEEDS:
        raise DistilleryError(f"seeds: {block!r} has {count:,} seeds, and {MOST_SEEDS:,} is the most")
    return tuple(range(first, last + 1))
