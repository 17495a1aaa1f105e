"""The blocks of a study that training code reads: recipe, method, view table. Nothing here imports torch.

Every default is the CIFAR-100 protocol of the field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*$")]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Augmentation(Block):
    """Random crop from a zero-padded image, and a horizontal flip with probability one half."""

    pad: int = Field(4, ge=0)
    flip: bool = True


class Recipe(Block):
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

    def contradictions(self) -> list[str]:
        """Settings that have no effect or cannot work together, one clause each."""
        found = []
        if late := [m for m in self.milestones if m > self.epochs]:
            found.append(f"milestones: {late[0]} is beyond the last epoch, {self.epochs}")
        if list(self.milestones) != sorted({*self.milestones}) or any(m < 1 for m in self.milestones):
            found.append("milestones: whole epochs in rising order, counted from 1")
        if self.nesterov and self.momentum == 0:
            found.append("nesterov: needs a momentum")
        return found

    def updated(self, *overrides: dict[str, Any]) -> Recipe:
        """Return the recipe with the keys of `overrides` replaced, later ones last."""
        merged = self.model_dump()
        for override in overrides:
            merged |= override
        return Recipe.model_validate(merged)


class Method(Block):
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


class Cache(Block):
    """The view table: precision, and the largest one that is built before the live teacher takes over."""

    enabled: bool = True
    dtype: Literal["float32", "float16"] = "float32"
    pooled: bool = False
    budget_gb: Positive = 16.0
    batch_size: int = Field(1024, ge=1)
