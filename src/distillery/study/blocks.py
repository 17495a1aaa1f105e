"""The blocks of a study that training code reads: recipe, method, view table. Nothing here imports torch.

Every default is the CIFAR-100 protocol of the field.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from distillery.config import Fraction, Positive
from distillery.recipe import AUGMENTATIONS, PARTS


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*", text) or len(text) > 100:
        raise ValueError("a name of at most 100 letters (a to z), digits and _, with single - between them")
    return text


Name = Annotated[str, AfterValidator(_name)]  # files and folders are called like it, which have at most 255 letters
Area = Annotated[float, Field(gt=0, le=1)]  # a share of an image's


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the least comes first, then the largest")
    return pair


class Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a key takes numbers: Python, and pydantic after it, count them as 1 and 0."""
        flags = any(isinstance(v, bool) for v in (value if isinstance(value, list | tuple) else [value]))
        kinds = _within(cls.model_fields[str(info.field_name)].annotation)
        if flags and {int, float} & kinds and not {bool, Any} & kinds:
            raise ValueError("a number")
        return value


def _within(annotation: Any) -> set[Any]:
    """An annotation and all that it is made of."""
    return {annotation}.union(*map(_within, get_args(annotation)))


class Named(Block):
    """An optimiser, a schedule or an augmentation of `distillery.recipe` by name, with its settings."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def keys(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Augmentation(Block):
    """Random crop from a zero-padded image, a horizontal flip with probability one half; then others, in order.

    Of streamed images a random part is resized instead: `scale` is its least and largest share of the area (default
    0.08 to 1), `ratio` its least and largest width / height (3/4 to 4/3). `view_seed` draws the views of all runs, if
    it is not to be the run's own seed; orders and first weights stay the run's. Differences between methods are then
    of the same views, and the spread between seeds holds less than a new training would.
    """

    pad: int = Field(4, ge=0)
    flip: bool = True
    scale: Annotated[tuple[Area, Area], AfterValidator(_ascending)] | None = None
    ratio: Annotated[tuple[Positive, Positive], AfterValidator(_ascending)] | None = None
    view_seed: int | None = Field(None, ge=0)
    then: tuple[Named, ...] = ()

    @property
    def enumerable(self) -> bool:
        """Whether all that can become of an image is a finite list, its views, that a table can hold.

        Mixing rules this out too: the teacher sees the mixed images.
        """
        return not self.then

    @model_serializer(mode="wrap")
    def _only_what_acts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not said and younger than the first studies: their identity stays."""
        return {k: v for k, v in dump(self).items() if v or k in ("pad", "flip") or type(v) is int}


class Ema(Block):
    """An exponential moving average of the weights (timm's ModelEmaV3; without a warm-up V2), updated after every step.

    With a warm-up the decay of update n is 1 - (1 + (n - 1) / warmup_gamma) ** -warmup_power, at most `decay`.
    `student` says which weights are the student: tested, saved and evaluated. The others are tested only, and are in
    the history as `raw_test_top1` or `average_test_top1`.
    """

    decay: Fraction = 0.9999
    warmup: bool = False
    warmup_gamma: Positive = 1.0
    warmup_power: Positive = 2 / 3
    student: Literal["average", "raw"] = "average"


class Recipe(Block):
    """The training protocol. Teachers, pairs and methods may override single keys.

    The optimiser is SGD with the keys `momentum` and `nesterov`, the schedule drops by `lr_decay` after `milestones`:
    unless `optimizer` or `schedule` name another one (see `distillery.recipe`).

    `drop_path` is the highest rate of stochastic depth, in networks that have it; without the key they keep their own.

    `precision` is that of networks and gradients; weights are float32 (or float64), losses are computed in float32.
    `compile` lets torch.compile (inductor) make fewer and larger kernels of the student: other last bits, the same
    dropout.

    `tap_preacts` asks the student for its pre-activation taps in every step, as the mdistiller lineage does whether a
    method uses them or not: its wide residual networks then update three batch normalisations twice per step.
    """

    epochs: int = Field(240, ge=1)
    batch_size: int = Field(64, ge=1)
    lr: Positive = 0.05
    momentum: Fraction = 0.9
    nesterov: bool = False
    optimizer: Named | None = None
    weight_decay: float = Field(5e-4, ge=0)
    decay: Literal["all", "matrices"] = "all"
    clip: Positive | None = None
    milestones: tuple[int, ...] = (150, 180, 210)
    lr_decay: Positive = 0.1
    schedule: Named | None = None
    label_smoothing: Fraction = 0.0
    ema: Ema | None = None
    augmentation: Augmentation = Augmentation()
    drop_path: Fraction | None = None
    validation: Fraction = 0.0
    test_every: int = Field(1, ge=1)
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    channels_last: bool = False
    deterministic: bool = True
    graph: bool = True
    compile: bool = False
    tap_preacts: bool = False

    def part(self, key: str) -> Any:
        """Make the `optimizer` or the `schedule`. Raises DistilleryError: an unknown name, or keys (Problems)."""
        registry, usual, short = PARTS[key]
        named: Named = getattr(self, key) or Named(name=usual)
        kind = registry[named.name].load()
        values = {k: getattr(self, k) for k in short} if named.name == usual else {}
        return kind(kind.Config.read(values | named.keys), self)

    def augmentations(self) -> list[Any]:
        """Make the entries of `augmentation.then`. Raises DistilleryError: an unknown name, or keys (Problems)."""
        return [self.augment(named) for named in self.augmentation.then]

    def augment(self, named: Named) -> Any:
        """Make one of these entries."""
        kind = AUGMENTATIONS[named.name].load()
        return kind(kind.Config.read(named.keys), self)

    def updated(self, *overrides: dict[str, Any]) -> Recipe:
        """Return the recipe with the keys of `overrides` replaced, later ones last.

        An override that names an optimiser or a schedule replaces all that was said about it before. Of `augmentation`
        and `ema` it replaces the keys that it names.
        """
        merged = self.model_dump(exclude_unset=True)
        for override in overrides:
            said = {k for key, (_, _, short) in PARTS.items() if key in override for k in short}
            merged = overridden({k: v for k, v in merged.items() if k not in said}, override)
        return Recipe.model_validate(merged)

    def effective(self) -> dict[str, Any]:
        """All that was chosen, defaults filled in, as JSON has it; the same however it was written.

        What the recipe's own keys can say is said by them and not by a block. Keys that are younger than the first
        studies are there only where they act, so that the identity of older ones stays.
        """
        values = self.model_dump(mode="json")
        for key, (_, usual, short) in PARTS.items():
            named: Named = getattr(self, key) or Named(name=usual)
            config = self.part(key).config
            keys = config.effective()
            more = {k for k, v in keys.items() if k not in short and v != type(config)().effective()[k]}
            block = named.name != usual or more
            values |= {k: None if block else keys[k] for k in short}
            values[key] = {"name": named.name} | keys if block else None
        if self.augmentation.then:
            parts = zip(self.augmentation.then, self.augmentations(), strict=True)
            values["augmentation"]["then"] = [{"name": n.name} | part.config.effective() for n, part in parts]
        idle = {"decay": "all", "label_smoothing": 0.0, "compile": False}
        return {k: v for k, v in values.items() if v is not None and (k not in idle or v != idle[k])}


def overridden(recipe: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """The keys of both, those of `override` counting; of the blocks `augmentation` and `ema` the keys in them."""
    blocks = [k for k in ("augmentation", "ema") if all(isinstance(said.get(k), dict) for said in (recipe, override))]
    return recipe | override | {k: recipe[k] | override[k] for k in blocks}


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
        """Return the method with its settings for one pair filled in, but the recipe (see `recipes`)."""
        merged = self.model_dump() | self.pairs.get(pair, {}) | {"recipe": {}, "pairs": {}}
        return Method.model_validate(merged)

    def recipes(self, pair: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the method and its block for a pair override of the recipe, one after the other."""
        return self.recipe, self.pairs.get(pair, {}).get("recipe", {})


class Cache(Block):
    """The view table: how it is computed and stored, and the largest one built before the live teacher takes over.

    `precision` is the teacher's while the table is built: float32 is exact, and what all students were compared by so
    far; that of the recipe gives what a live teacher would say in training, sooner. Its effect on logits is measured
    and recorded. `dtype` is how the outputs are stored.
    """

    enabled: bool = True
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    dtype: Literal["float32", "float16", "int16"] = "float32"
    pooled: bool = False
    budget_gb: Positive = 16.0
    batch_size: int = Field(1024, ge=1)

    @model_serializer(mode="wrap")
    def _only_what_acts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out float32 as `precision`, which is younger than the first studies: their identity stays."""
        return {k: v for k, v in dump(self).items() if k != "precision" or v != "float32"}
