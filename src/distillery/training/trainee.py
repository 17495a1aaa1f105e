"""What is trained in one run, a student and its objective, built from the study's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from distillery import models
from distillery.data.dataset import Dataset
from distillery.models.base import Network, Outputs
from distillery.objectives.base import Context, Objective
from distillery.objectives.build import build
from distillery.study.blocks import Method
from distillery.training.device import seeded


@dataclass
class Trainee:
    """What is trained: the student, and the objective with its own modules."""

    student: Network
    objective: Objective

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """What is trained: of the student, then of the objective."""
        parts = {"student": self.student, "objective": self.objective}
        return [(f"{part}.{n}", p) for part, m in parts.items() for n, p in m.named_parameters() if p.requires_grad]

    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for _, p in self.named_parameters()]

    def state_dict(self) -> dict[str, Tensor]:
        """The weights that predict: the student's, and the objective's where it predicts in the student's place."""
        weights = {f"student.{k}": v for k, v in self.student.state_dict().items()}
        if self.objective.predicts:
            weights |= {f"objective.{k}": v for k, v in self.objective.state_dict().items()}
        return weights


def assemble(student: str, method: Method, data: Dataset, teachers: list[Network], seed: int) -> Trainee:
    """Build the student and the objective of one run. The student's first weights depend on the seed alone."""
    with seeded(seed, "init"):
        network = models.build(student, data.num_classes, data.channels)
    with seeded(seed, "objective"):
        objective = build(method, _context(data, network, teachers))
    return Trainee(network, objective)


@torch.no_grad()
def _context(data: Dataset, student: Network, teachers: list[Network]) -> Context:
    image = data.normalise(data.test_images[:1])
    student_device = next(student.parameters()).device
    example = student.eval()(image.to(student_device), preacts=True)
    if not teachers:
        return Context(data.num_classes, data.train_labels, example)
    first = teachers[0]
    dtype = next(first.parameters()).dtype
    outputs = first(image.to(dtype), preacts=True)
    return Context(data.num_classes, data.train_labels, example, outputs, first, partial(_on_train, first, data, dtype))


@torch.no_grad()
def _on_train(network: Network, data: Dataset, dtype: torch.dtype) -> Outputs:
    parts = [network(data.normalise(images, dtype)) for images in data.train_images.split(1000)]
    return Outputs(torch.cat([p.logits for p in parts]), torch.cat([p.pooled for p in parts if p.pooled is not None]))
