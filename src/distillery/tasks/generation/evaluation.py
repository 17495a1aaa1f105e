"""What is measured about a trained generator, and the images of every class that are kept of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.evaluation.macs import multiply_accumulates
from distillery.evaluation.samples import shown_classes
from distillery.evaluation.task import Evaluation
from distillery.models.base import Network, anchor
from distillery.study.blocks import Recipe
from distillery.tasks.generation import Generation
from distillery.tasks.generation.biggan import AT_A_TIME, Discriminator, Shown
from distillery.tasks.generation.objectives.base import Wanted
from distillery.tasks.generation.training import GenTraining

COLUMNS = 6  # of the grid: images of each class shown


class GenEvaluation(Evaluation):
    """Outputs are the images that the tests while training see, their classes, and a grid of some classes.

    A teacher generates nothing, and has none of them.
    """

    images_each: ClassVar[int] = 2  # a generated image beside each real one
    bulk: ClassVar[Mapping[str, DTypeLike]] = {"samples": np.uint8}
    task: Generation

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.training = GenTraining(task)

    def outputs(
        self, network: Network, data: Dataset, recipe: Recipe, predict: Callable[[Any], Any] | None = None
    ) -> Any:
        if predict is None:
            return None
        config = self.task.config
        batch = config.sampling == "batch"
        images, labels = predict(Wanted(config.samples, batch))
        wanted = laid_out(data.num_classes)
        grid, _ = predict(Wanted(len(wanted), batch, wanted))
        return images, labels, by_class(grid, data.num_classes)

    def measure(self, outputs: Any, data: Dataset) -> dict[str, Any]:
        """The task's measures under `last`, and `samples`: ten classes, six images each, (60, H, W, C) uint8."""
        if outputs is None:
            return {"last": {}, "samples": []}
        images, labels, grid = outputs
        found, more = self.training.judge(data)(images, labels)
        return {"last": found, "samples": grid.permute(0, 2, 3, 1).numpy()} | more

    def facts(self, data: Dataset) -> dict[str, Any]:
        return {"test_images": len(data.test_labels), "data": data.facts}

    def multiply_accumulates(self, network: Network, data: Dataset) -> int:
        """Of the discriminator, or of a teacher, for one image."""
        weight = anchor(network)
        image = data.normalise(data.example().to(weight.device), weight.dtype)
        if isinstance(network, Discriminator):
            shown: Any = Shown(image, data.test_labels[:1].to(weight.device))
            return multiply_accumulates(network, shown)
        return multiply_accumulates(network, image)


def laid_out(num_classes: int) -> Tensor:
    """Classes of the images that a grid is made of, in turn, so that all that are made at a time are alike mixed.

    More than are shown: the last ones would else be normalised by the statistics of a few images of two classes.
    """
    shown = torch.tensor(shown_classes(num_classes))
    count = -(-COLUMNS * len(shown) // AT_A_TIME) * AT_A_TIME
    return shown[torch.arange(count) % len(shown)]


def by_class(images: Tensor, num_classes: int) -> Tensor:
    """Of images in the order of `laid_out` the first six of each class, class by class."""
    shown = len(shown_classes(num_classes))
    return images[torch.arange(COLUMNS * shown).view(COLUMNS, shown).T.flatten()]
