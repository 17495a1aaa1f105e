"""Plain training: the student trained alone, on the objects; all methods of detection add to these losses."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from distillery.config import Config as BaseConfig
from distillery.config import Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.tasks.detection.criterion import anchor_losses, set_losses
from distillery.tasks.detection.detections import Detections


class Cost(BaseConfig):
    """Weights of class, L1 distance and generalised IoU."""

    classes: Weight = 2.0
    l1: Weight = 5.0
    giou: Weight = 2.0

    def values(self) -> tuple[float, float, float]:
        return self.classes, self.l1, self.giou


class Detect(Objective):
    """Plain training of a detector: of ViDT matched sets (Deformable DETR's losses), of RetinaNet its own.

    Methods that distil override `distill`. `ce_weight` multiplies all of the losses here.
    """

    class Config(Objective.Config):
        """Keys of a method's block."""

        ce_weight: Weight = 1.0
        """Of the losses of the predictions, all together."""
        matching: Cost = Cost()
        """Of sets: what a matching costs."""
        losses: Cost = Cost()
        """Of sets: weights of the losses."""

    needs: ClassVar[frozenset[str]] = frozenset()
    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        assert isinstance(context.student, Detections)
        self.head = context.student.head

    @property
    def static(self) -> bool:
        """Matching asks the host."""
        return False

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        weight, config = self.config.ce_weight, self.config
        if not weight:
            return {}
        if self.head == "set":
            losses = set_losses(batch.student.logits, batch.targets, config.matching.values(), config.losses.values())
        else:
            losses = anchor_losses(batch.student.logits, batch.targets)
        return {name: weight * loss for name, loss in losses.items()}
