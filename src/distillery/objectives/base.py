"""What a training loss is handed, and what it hands back. A new method is one file beside this one.

An objective knows tensors only: no files, no devices, no schedule but the epoch in the batch. `fit()` builds it
once per run, trains its parameters (if it has any) with the student's optimiser, and adds up the terms it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Config as BaseConfig
from distillery.config import Weight
from distillery.errors import DistilleryError
from distillery.models.base import Network, Outputs
from distillery.objectives.soft import full_precision

# What an objective may ask for in `needs`.
NEEDS = frozenset({"logits", "pooled", "maps", "preacts", "strong", "teachers", "tokens", "distilled", "cams"})


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch. Student and teacher have seen the same view of every image.

    Attributes:
        targets: what the loss compares with. Of classes (B,) int64, where -1 marks an unlabelled image (ensemble
            distillation only), or soft ones (B, C) while images are mixed; other tasks have their own.
        student: the student's outputs, with gradient.
        teachers: the teachers' outputs, without gradient; empty for methods that need no teacher.
        epoch: () float tensor, the running epoch counted from 1. A tensor, so that a captured graph sees it move.
        index: (B,) int64 positions in the training set.
        strong_student, strong_teacher: outputs on a second, strongly augmented view (methods with need "strong").
    """

    targets: Any
    student: Outputs
    teachers: tuple[Outputs, ...]
    epoch: Tensor
    index: Tensor
    strong_student: Outputs | None = None
    strong_teacher: Outputs | None = None

    @property
    def labels(self) -> Tensor:
        """(B,) int64 classes. Raises Incompatible where images are mixed, since none of them has one class."""
        return one_class(self.targets)

    @property
    def teacher(self) -> Outputs:
        """The (first) teacher."""
        return self.teachers[0]

    def rows(self, keep: Tensor) -> Batch:
        """The batch of the rows where the (B,) boolean `keep` holds."""

        def cut(tensor: Tensor) -> Tensor:
            return tensor[keep]

        found = self.of_all(lambda outputs: outputs.each(cut))
        return replace(found, targets=cut(self.targets), index=cut(self.index))

    def of_all(self, change: Callable[[Outputs], Outputs]) -> Batch:
        """The batch with the outputs of every network changed."""
        student, teacher = self.strong_student, self.strong_teacher
        return replace(
            self,
            student=change(self.student),
            teachers=tuple(map(change, self.teachers)),
            strong_student=None if student is None else change(student),
            strong_teacher=None if teacher is None else change(teacher),
        )


@dataclass(frozen=True, slots=True)
class Context:
    """The facts of a run that an objective may need to build its own modules.

    Attributes:
        num_classes: C.
        labels: (N,) int64 training labels (negative sampling, selection).
        student, teacher: outputs of both networks for one example image, B = 1: their shapes are what counts.
        teacher_model: the frozen teacher (methods that reuse its head or statistics), if there is one.
        teacher_on_train: gives the teacher's logits and pooled features, (N, C) and (N, d), on the training images
            without augmentation; computed when called (data selection).
    """

    num_classes: int
    labels: Tensor
    student: Outputs
    teacher: Outputs | None = None
    teacher_model: Network | None = None
    teacher_on_train: Callable[[], Outputs] | None = None


class Incompatible(DistilleryError):
    """These networks, or this data, give the method not what it needs."""


def one_class(targets: Tensor) -> Tensor:
    """Return (B,) classes as they are. Raises Incompatible for soft targets (B, C)."""
    if targets.ndim > 1:
        raise Incompatible(
            "it asks for one class per image, and mixed images (mixup, cutmix) have two: override "
            "`augmentation: {then: []}` for it"
        )
    return targets


class Plugin(nn.Module):
    """What a method's `plugins:` block adds to its objective: a `Transform` or a `Selector`."""

    class Config(BaseConfig):
        """Keys of the plug-in's block."""

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else type(self).Config()


class Transform(Plugin):
    """A change to the logits before they meet in the distillation term; it combines with any logit objective.

    `order` fixes the sequence of several transforms (equal ones: by name) whatever their order in params.yaml: the
    teacher is corrected (order 1) before both logits are standardised (order 2), as the released code does.
    """

    order: ClassVar[int] = 1
    reads_labels: ClassVar[bool] = True  # False: it works on mixed images too, which have no single class
    least_classes: ClassVar[int] = 2  # with fewer classes nothing is left of the logits
    corrects: ClassVar[bool] = False  # True: it puts a wrong teacher right, and a second such one finds nothing to do

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C) student and teacher logits to the pair that the distillation term compares."""
        return student, teacher


class Selector(Plugin):
    """Decides which images the teacher supervises; the others get the ground truth only. Override `mask`."""

    keep: Tensor

    def __init__(self, context: Context, config: Plugin.Config | None = None) -> None:
        super().__init__(config)
        self.register_buffer("keep", self.mask(context))

    def mask(self, context: Context) -> Tensor:
        """Return the (N,) boolean mask of the training images that the teacher supervises: all of them."""
        return torch.ones_like(context.labels, dtype=torch.bool)

    def forward(self, batch: Batch) -> Tensor:
        """Return the (B,) mask of the batch's rows that are distilled."""
        return self.keep[batch.index]


class Objective(nn.Module):
    """Base of every training loss: weighted cross-entropy plus the terms of `distill`.

    A nested `Config` declares the hyper-parameters: those are the keys of the method's block in params.yaml. Override
    `distill`; override `supervised` if the method changes the cross-entropy, and `__init__(context, config)` if it has
    modules of its own. `forward` adds the terms up and applies a data selection, if there is one.

    Attributes:
        needs: what the batch must hold: any of "logits" (the teacher's), "pooled", "maps", "preacts", "tokens"
            or "cams" (of both networks), "strong" (a second view), "teachers" (several), "distilled" (the student's
            distillation head, where it has one, which no other method trains). Empty: no teacher at all.
        unlabelled: whether it learns from images without a label (-1) too, where `data.labelled` hides some.
        static: False if a step's tensor shapes depend on the data, which rules out graph capture; a data selection
            makes them do so. A method whose own shapes do sets `static = False` in its class.
        refuses: plug-ins that would take the method's sense away, by name, and why.
    """

    class Config(BaseConfig):
        """Keys of a method's block. Sub-classes inherit these, add their own, and may change defaults."""

        ce_weight: Weight = 1.0
        """Of the cross-entropy with the labels."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    unlabelled: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = MappingProxyType({})
    config: Config
    smoothing: float = 0.0

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else type(self).Config()
        self.plugins = nn.ModuleList()
        self.selector: Selector | None = None

    @property
    def static(self) -> bool:
        return self.selector is None

    @classmethod
    def faults(cls, config: Any, epochs: int, teachers: int, hidden: bool) -> Iterator[str]:
        """Say what the keys ask in vain in runs of so many epochs with so many teachers; `hidden`: some labels are."""
        yield from ()

    def logits(self, student: Tensor, teacher: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Give student and teacher logits, (B, C) each, after the method's plug-ins. `distill` compares these."""
        student, teacher = full_precision(student), full_precision(teacher)
        for plugin in self.plugins:
            student, teacher = plugin(student, teacher, one_class(targets) if plugin.reads_labels else targets)
        return student, teacher

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted cross-entropy of the raw student logits."""
        if self.config.ce_weight == 0:
            return {}
        return {"ce": self.config.ce_weight * self.cross_entropy(batch.student.logits, batch.targets)}

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of (B, C) raw logits with classes, smoothed if the recipe says so.

        `targets` are (B,) classes or (B, C) soft ones, which whoever mixed the images has smoothed.
        """
        logits, soft = full_precision(logits), targets.ndim > 1
        targets = targets.to(logits.dtype) if soft else targets
        return F.cross_entropy(logits, targets, label_smoothing=0.0 if soft else self.smoothing)

    def smooth(self, amount: float) -> None:
        """Take the labels of the supervised term for (1 - amount) of the truth, and the rest for any class alike.

        Nothing else is smoothed: no distillation term, no test. A method that has a supervised term of its own
        (overrides `supervised`) is refused with smoothing, since what it should mean there is its author's to say.
        """
        for module in self.modules():
            if isinstance(module, Objective):
                module.smoothing = amount

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted distillation terms, scalars by name. No term for plain training."""
        return {}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return all weighted terms, scalars by name; their sum is the loss.

        With a data selection the method's loss is taken over the selected rows and the plain cross-entropy over the
        others, each weighted by its share of the batch, so that every row counts 1/B.
        """
        if self.selector is not None:
            keep = self.selector(batch)
            selected = int(keep.sum())
            if selected < len(keep):
                share = selected / len(keep)
                rows = batch.rows(keep) if selected else None
                terms = {**self.supervised(rows), **self.distill(rows)} if rows is not None else {}
                plain = self.cross_entropy(batch.student.logits[~keep], batch.targets[~keep])
                return {name: share * term for name, term in terms.items()} | {"ce_unselected": (1 - share) * plain}
        return {**self.supervised(batch), **self.distill(batch)}

    def shown(self, inputs: Any, targets: Any) -> Any:
        """What student and teachers are shown of a batch: its inputs (a generator adds images of its own)."""
        return inputs

    def then(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """Further losses of the same step, each with an update of its own: of a player beside the student.

        A loss is taken when the update before it has been made; parameters that it leaves without gradient stay. None.
        """
        yield from ()

    @property
    def predicts(self) -> bool:
        """Whether the objective's own modules take part in the prediction, and so belong to the trained student."""
        return type(self).predict is not Objective.predict

    def predict(self, outputs: Outputs) -> Tensor:
        """Return the logits the trained student is judged by (SimKD puts the teacher's head here)."""
        return outputs.logits


def warmup(epoch: Tensor, epochs: float, dtype: torch.dtype) -> Tensor:
    """Linear warm-up factor min(epoch / epochs, 1), epoch counted from 1 as in the mdistiller lineage.

    `dtype` is that of the loss it multiplies: a float64 run would feel the rounding of a float32 quotient.
    """
    epoch = epoch.to(dtype)
    return torch.clamp(epoch / epochs, max=1.0) if epochs > 0 else torch.ones_like(epoch)
