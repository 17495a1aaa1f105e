"""Batches and contexts of logits only, for the tests of the logit objectives."""

from __future__ import annotations

import torch
from torch import Tensor

from distillery.models.base import Outputs
from distillery.objectives.base import Batch, Context, Objective


def context(labels: Tensor, logits: Tensor) -> Context:
    """The context of a run whose networks give rows like those of `logits`."""
    return Context(logits.shape[1], labels, Outputs(logits[:1].detach()), Outputs(logits[:1].detach()))


def batch(
    student: Tensor,
    teacher: Tensor | tuple[Tensor, ...],
    labels: Tensor,
    epoch: float = 1.0,
    strong: tuple[Tensor, Tensor] | None = None,
) -> Batch:
    """One batch of (B, C) logits; `strong` are the student's and the teacher's logits on the second view."""
    teachers = teacher if isinstance(teacher, tuple) else (teacher,)
    return Batch(
        targets=labels,
        student=Outputs(student),
        teachers=tuple(Outputs(t) for t in teachers),
        epoch=torch.tensor(epoch, dtype=torch.float64 if student.dtype == torch.float64 else torch.float32),
        index=torch.arange(len(labels)),
        strong_student=None if strong is None else Outputs(strong[0]),
        strong_teacher=None if strong is None else Outputs(strong[1]),
    )


def total(objective: Objective, rows: Batch) -> Tensor:
    """The loss: the sum of all weighted terms."""
    return torch.stack([term.reshape(()) for term in objective(rows).values()]).sum()
