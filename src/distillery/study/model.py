"""The study: `params.yaml` as frozen, validated objects. Nothing here imports torch, so that every engine may parse it.

Unknown keys are refused with the nearest known name; every default below is the CIFAR-100 protocol of the field.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from distillery.records.io import DistilleryError
from distillery.study.reader import read_params as read_params

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*$")]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Augmentation(_Block):
    """Random crop from a zero-padded image, and a horizontal flip with probability one half."""

    pad: int = Field(4, ge=0)
    flip: bool = True


class Recipe(_Block):
    """The training protocol. Teachers, pairs and methods may override single keys.

    `tap_preacts` asks the student for its pre-activation taps in every step, as the mdistiller lineage does whether a
    method uses them or not: its wide residual networks then update three batch normalisations twice per step.
    """

    epochs: int = Field(240, ge=1)
    batch_size: int = Field(64, ge=1)
    lr: Positive = 0.05
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: float = Field(5e-4, ge=0)
    milestones: tuple[int, ...] = (150, 180, 210)
    lr_decay: Positive = 0.1
    augmentation: Augmentation = Augmentation()
    validation: Fraction = 0.0
    test_every: int = Field(1, ge=1)
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    channels_last: bool = False
    deterministic: bool = True
    graph: bool = True
    tap_preacts: bool = False

    def updated(self, *overrides: dict[str, Any]) -> Recipe:
        """Return the recipe with the keys of `overrides` replaced, later ones last."""
        merged = self.model_dump()
        for override in overrides:
            merged |= override
        return Recipe.model_validate(merged)


class Data(_Block):
    """Where the images come from: the name of a source in `distillery.data` and that source's options."""

    model_config = ConfigDict(frozen=True, extra="allow")
    source: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Teacher(_Block):
    """One teacher: trained here by the recipe, or fetched from a released checkpoint.

    `urls` are mirrors in order of preference: web addresses, local files or folders, each holding the checkpoint itself
    or an archive with it as `member`. `sha256` is that of either file. `accuracy` is the published one, in percent: a
    fetched teacher that misses it by more than 0.3 points is refused. For the teachers in `teachers/released.py` all of
    these may be left out. `fallback` says what to do when every mirror fails.
    """

    architecture: str
    source: Literal["train", "fetch"] = "train"
    seed: int = 0
    recipe: dict[str, Any] = {}
    urls: tuple[str, ...] = ()
    member: str | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    accuracy: float | None = Field(None, gt=0, le=100)
    fallback: Literal["none", "train"] = "none"


class Pair(_Block):
    """Teacher (or teachers, for ensemble distillation) and student architecture."""

    teacher: Name | tuple[Name, ...]
    student: str
    recipe: dict[str, Any] = {}

    @property
    def teachers(self) -> tuple[str, ...]:
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher


class Method(_Block):
    """A named training loss: an objective, its hyper-parameters, plug-ins and partners."""

    model_config = ConfigDict(frozen=True, extra="allow")
    objective: str
    label: str | None = None
    plugins: dict[str, dict[str, Any]] = {}
    plus: dict[str, dict[str, Any]] = {}
    recipe: dict[str, Any] = {}
    pairs: dict[str, dict[str, Any]] = {}

    @property
    def hyper(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def for_pair(self, pair: str) -> Method:
        """Return the method with its settings for one pair filled in; recipes are merged key by key."""
        settings = self.pairs.get(pair, {})
        merged = self.model_dump() | settings | {"recipe": self.recipe | settings.get("recipe", {}), "pairs": {}}
        return Method.model_validate(merged)


class Cache(_Block):
    """The view table: precision, and the largest one that is built before the live teacher takes over."""

    enabled: bool = True
    dtype: Literal["float32", "float16"] = "float32"
    pooled: bool = False
    budget_gb: Positive = 16.0
    batch_size: int = Field(1024, ge=1)


class Tables(_Block):
    """What the result tables show."""

    convention: Literal["last", "best"] = "last"
    baseline: str | None = None
    resolve: Positive = 0.5


class Study(_Block):
    """A whole study, checked. `Study.load()` reads it from params.yaml."""

    study: Name
    data: Data
    recipe: Recipe = Recipe()
    teachers: dict[Name, Teacher]
    pairs: dict[Name, Pair] = Field(min_length=1)
    methods: dict[Name, Method] = Field(min_length=1)
    seeds: tuple[int | str, ...] = Field(min_length=1)
    cache: Cache = Cache()
    tables: Tables = Tables()

    @field_validator("seeds", mode="before")
    @classmethod
    def _one_entry(cls, seeds: Any) -> Any:
        return [seeds] if type(seeds) in (int, str) else seeds  # `seeds: 5` and `seeds: 0-2` are one entry

    @staticmethod
    def load(path: Path | str = "params.yaml") -> Study:
        """Read and check a study. Raises DistilleryError with one sentence per mistake."""
        from distillery.study.check import check  # it reads the classes of this module

        return check(read_params(path), str(path))

    def recipe_for_teacher(self, teacher: str) -> Recipe:
        return self.recipe.updated(self.teachers[teacher].recipe)

    def recipe_for(self, pair: str, method: str) -> Recipe:
        """The student's recipe: study, then pair, then method, then the method's block for this pair."""
        return self.recipe.updated(self.pairs[pair].recipe, self.methods[method].for_pair(pair).recipe)

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
    return tuple(range(first, last + 1))
