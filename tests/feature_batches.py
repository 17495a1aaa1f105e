"""Batches and contexts of features, for the tests of the feature objectives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distillery.models.base import Network, Outputs
from distillery.objectives.base import Batch, Context, Objective

STEM = torch.zeros(1, 3, 8, 8)


def outputs(
    logits: Tensor | None = None,
    pooled: Tensor | None = None,
    maps: Sequence[Tensor] = (),
    preacts: Sequence[Tensor] = (),
) -> Outputs:
    """Outputs of one network; the stages get the stem that every network has in front of them."""
    some = next(x for x in (logits, pooled, *maps, *preacts) if x is not None)
    stem = STEM.to(some.dtype).expand(len(some), -1, -1, -1)
    logits = torch.zeros(len(some), 10, dtype=some.dtype) if logits is None else logits
    return Outputs(logits, pooled, (stem, *maps) if maps else (), (stem, *preacts) if preacts else ())


def first(o: Outputs) -> Outputs:
    """The outputs of the first image: what a context holds."""
    pooled = None if o.pooled is None else o.pooled[:1].detach()
    return Outputs(
        o.logits[:1].detach(), pooled, tuple(m[:1].detach() for m in o.maps), tuple(m[:1].detach() for m in o.preacts)
    )


def context(
    student: Outputs, teacher: Outputs, labels: Tensor | None = None, teacher_model: Network | None = None
) -> Context:
    """The context of a run whose networks give such outputs."""
    labels = torch.arange(40) % 10 if labels is None else labels
    return Context(student.logits.shape[1], labels, first(student), first(teacher), teacher_model)


def batch(
    student: Outputs, teacher: Outputs, labels: Tensor | None = None, epoch: float = 1.0, index: Tensor | None = None
) -> Batch:
    """One batch of such outputs; image i has the training position and label i (modulo 10) unless told otherwise."""
    index = torch.arange(len(student.logits)) if index is None else index
    dtype = torch.float64 if student.logits.dtype == torch.float64 else torch.float32
    return Batch(index % 10 if labels is None else labels, student, (teacher,), torch.tensor(epoch, dtype=dtype), index)


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of weighted terms."""
    return torch.stack([term.reshape(()) for term in terms.values()]).sum()


def distilled(objective: Objective, rows: Batch) -> Tensor:
    """The sum of an objective's distillation terms."""
    return total(objective.distill(rows))
