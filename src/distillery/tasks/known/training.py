"""Training on samples of a source whose class probabilities are known; teachers may be formulas."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.data.gaussian import weight_of
from distillery.data.loader import Loader
from distillery.data.resident import Resident
from distillery.data.views import order, seed_for
from distillery.models.base import Network
from distillery.models.bayes import Bayes
from distillery.objectives.base import Context
from distillery.objectives.build import Loss
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import ClassTraining
from distillery.training.device import autocast
from distillery.training.parallel import ALONE, Ranks
from distillery.training.trainee import Trainee


def bayes_weight(data: Dataset) -> Tensor:
    """(C, F) float64 weight of log p*, on the data's device."""
    separation = data.facts["selection"]["separation"]
    return torch.from_numpy(weight_of(separation, data.num_classes, data.channels)).to(data.test_labels.device)


def bayes_log_probs(data: Dataset) -> Tensor:
    """(N, C) float64 log p* of all test rows."""
    rows = data.normalise(data.test_images, torch.float64).flatten(1)
    return F.log_softmax(rows @ bayes_weight(data).T, dim=1)


class Sampled(Resident):
    """A `Loader` whose runs have samples of their own: `recipe.batch_size` of the training rows, drawn by the seed."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        super().__init__(data, recipe)
        self.count = min(recipe.batch_size, self.count)

    def order(self, seed: int, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed_for(seed, "sample"))
        sample = torch.randperm(len(self.data.train_labels), generator=generator)[: self.count]
        return sample[order(seed, epoch, self.count)]


class KnownTraining(ClassTraining):
    """As for other classes, on samples; and each test also measures the excess log-loss."""

    def loader(self, data: Any, recipe: Recipe) -> Loader:
        return Sampled(data, recipe)

    def network(self, architecture: str, data: Any) -> Network:
        network = super().network(architecture, data)
        if isinstance(network, Bayes):
            network.know(bayes_weight(data))
        return network

    def assemble(self, student: str, method: Method, data: Any, teachers: list[Network], seed: int) -> Trainee:
        network = self.network(student, data)
        if not isinstance(network, Bayes):
            return super().assemble(student, method, data, teachers, seed)
        example = network(data.normalise(data.example().cpu()))
        return Trainee(network, Loss(method).build(Context(data.num_classes, data.train_labels, example)), self)

    @torch.no_grad()
    def test(self, trainee: Trainee, loader: Any, recipe: Recipe, ranks: Ranks = ALONE) -> dict[str, float]:
        """As for other classes, and `test_excess`: the mean of KL(p* || student) over the test rows, in nats."""
        record = super().test(trainee, loader, recipe, ranks)
        data: Dataset = loader.data
        with autocast(recipe, loader.device):
            logits = trainee.student(data.normalise(data.test_images, loader.dtype)).logits
        return record | {"test_excess": excess(logits, bayes_log_probs(data))}


def excess(logits: Tensor, bayes: Tensor) -> float:
    """Excess log-loss: the mean over rows of KL(p* || softmax(logits)), (N, C) logits and log p* in, nats out."""
    rows = F.kl_div(F.log_softmax(logits.double(), dim=1), bayes, reduction="none", log_target=True).sum(1)
    return float(rows.mean())
