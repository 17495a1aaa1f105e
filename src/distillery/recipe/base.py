"""What optimisers, learning-rate schedules and augmentations derive from. A new one is one file beside this one.

Nothing here imports torch, so that a study is checked without it: an optimiser imports it where it is built, an
augmentation where it acts.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

from distillery.config import Config as BaseConfig
from distillery.config import Epochs, Weight

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from distillery.imaging.draw import Draw
    from distillery.study.blocks import Recipe

Kind = TypeVar("Kind", bound="torch.optim.Optimizer")


class Part:
    """A named part of a recipe: its settings, and the recipe that it belongs to."""

    class Config(BaseConfig):
        """Keys of the part's block."""

    config: Config

    def __init__(self, config: Config, recipe: Recipe) -> None:
        self.config, self.recipe = config, recipe

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Settings that have no effect or cannot work together: (key, clause)."""
        yield from ()


class Optimizer(Part):
    """Makes a torch optimiser. Override `build`.

    All that changes from step to step must be tensors in the optimiser's `state`, where checkpoints and captured graphs
    find it. It is zero before the first step, but for what `starts` names.
    """

    starts: ClassVar[Mapping[str, float]] = {}

    def build(self, groups: list[dict[str, Any]], lr: float | Tensor) -> torch.optim.Optimizer:
        """Return the optimiser of some groups of parameters, each with its own `weight_decay`.

        `lr` is a tensor on CUDA, where a captured graph reads it: the optimiser must then be capturable.
        """
        raise TypeError(f"{type(self).__name__} does not define this")


def light(kind: type[Kind]) -> type[Kind]:
    """A torch optimiser that does not import torch's compiler, a third of what it takes to start a job that trains.

    torch wraps these methods to keep them out of what is compiled, and a step without gradients. Nothing here compiles
    an optimiser.
    """
    import torch

    bare = {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad", "step")}
    bare["step"] = torch.no_grad()(bare["step"])
    return cast("type[Kind]", type(kind.__name__, (kind,), bare))


class Schedule(Part):
    """The learning rate over a run, after a linear warm-up from `warmup_lr`. Override `curve`."""

    class Config(Part.Config):
        warmup_epochs: Epochs = 0.0
        """Epochs in which the rate rises linearly to `lr`."""
        warmup_lr: Weight = 1e-6
        """Rate that the warm-up starts from."""
        per: Literal["epoch", "step"] = "epoch"
        """How often the rate changes."""

    config: Config

    def rate(self, epoch: int, done: float = 0.0) -> float:
        """The rate in an epoch, counted from 1, after a share `done` of its steps."""
        at = epoch - 1 + (done if self.config.per == "step" else 0.0)
        warmup, first = self.config.warmup_epochs, self.config.warmup_lr
        return first + at * (self.recipe.lr - first) / warmup if at < warmup else self.curve(at)

    def curve(self, at: float) -> float:
        """The rate `at` epochs after the start of training, where the warm-up is over."""
        raise TypeError(f"{type(self).__name__} does not define this")

    def contradictions(self) -> Iterator[tuple[str, str]]:
        config, recipe = self.config, self.recipe
        if config.warmup_epochs >= recipe.epochs:
            yield "warmup_epochs", f"{config.warmup_epochs:g} leave nothing of {recipe.epochs} epochs"
        if not config.warmup_epochs and config.warmup_lr != Schedule.Config().warmup_lr:
            yield "warmup_lr", "has no effect without warmup_epochs"
        if config.warmup_epochs and config.warmup_lr >= recipe.lr:
            yield "warmup_lr", f"{config.warmup_lr:g} is not below lr, {recipe.lr:g}"


class Falling(Schedule):
    """A rate that falls over the whole run, from `lr` to `min_lr`. Override `left`."""

    class Config(Schedule.Config):
        min_lr: Weight = 0.0
        """Rate at the very end, after the last step."""
        warmup_prefix: bool = False
        """true: the curve begins after the warm-up. false: the warm-up replaces its beginning, as timm's does."""

    config: Config

    def curve(self, at: float) -> float:
        before = self.config.warmup_epochs if self.config.warmup_prefix else 0.0
        left = self.left((at - before) / (self.recipe.epochs - before))
        return self.config.min_lr + (self.recipe.lr - self.config.min_lr) * left

    def left(self, done: float) -> float:
        """What is left of the way from `lr` to `min_lr`, 1 to 0, when a share of it is done, 0 to 1."""
        raise TypeError(f"{type(self).__name__} does not define this")

    def contradictions(self) -> Iterator[tuple[str, str]]:
        yield from super().contradictions()
        if self.config.min_lr >= self.recipe.lr:
            yield "min_lr", f"{self.config.min_lr:g} is not below lr, {self.recipe.lr:g}"
        if self.config.warmup_prefix and not self.config.warmup_epochs:
            yield "warmup_prefix", "has no effect without warmup_epochs"


class Augment(Part):
    """A random change to a batch of training images, after crop and flip. Override `__call__`.

    Attributes:
        stage: what it is handed. "image": (B, 3, H, W) uint8 images of grey levels 0 to 255. "batch": normalised
            images. Entries of stage "image" come first in a recipe.
        mixes: whether it mixes the targets of several images; it is then handed soft ones, (B, C) floats.
        capturable: whether it can be captured in a CUDA graph: shapes that depend on no data, no waiting for the host.
    """

    stage: ClassVar[Literal["image", "batch"]] = "image"
    mixes: ClassVar[bool] = False
    capturable: ClassVar[bool] = True

    def __call__(self, images: Tensor, targets: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return new images of the same shape and type, and the targets: int64 (B,) classes, or float (B, C).

        All randomness comes from `draw`, which gives every image of the batch numbers of its own.
        """
        raise TypeError(f"{type(self).__name__} does not define this")
