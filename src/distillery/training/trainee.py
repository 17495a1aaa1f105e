"""What is trained in one run: a student and its objective, for a task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distillery.models.base import Network
from distillery.objectives.base import Objective
from distillery.training.task import Training


@dataclass
class Trainee:
    """What is trained: the student, and the objective with its own modules. The task says how it is tested."""

    student: Network
    objective: Objective
    task: Training

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """What is trained: of the student, then of the objective."""
        parts = {"student": self.student, "objective": self.objective}
        return [(f"{part}.{n}", p) for part, m in parts.items() for n, p in m.named_parameters() if p.requires_grad]

    def undecayed(self) -> set[str]:
        """Names of parameters that are to have no weight decay, as modules say by `no_weight_decay()`: timm's habit."""
        parts = [("student", self.student), ("objective", self.objective)]
        found = ((f"{part}.{path}.", m) for part, whole in parts for path, m in whole.named_modules())
        return {
            where.replace("..", ".") + name
            for where, module in found
            if callable(said := getattr(module, "no_weight_decay", None))
            for name in said()
        }

    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for _, p in self.named_parameters()]

    def state_dict(self) -> dict[str, Tensor]:
        """The weights that predict: the student's, and the objective's where it predicts in the student's place."""
        weights = {f"student.{k}": v for k, v in self.student.state_dict().items()}
        if self.objective.predicts:
            weights |= {f"objective.{k}": v for k, v in self.objective.state_dict().items()}
        return weights
