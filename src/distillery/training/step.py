"""One training step: view, forward, loss, backward, update. Eager on the CPU, one captured graph on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillery.models.base import Network, Outputs
from distillery.objectives.base import Batch, Objective
from distillery.records.io import DistilleryError
from distillery.study.blocks import Recipe
from distillery.training.checkpoint import pack
from distillery.training.device import autocast
from distillery.training.optimizer import trained
from distillery.training.parallel import ALONE, Ranks


@dataclass
class Plan:
    """One epoch laid out on the device, in the order of training.

    Attributes:
        index, view: (N,) int64: which image, in which of its views.
        targets: per teacher, the cached outputs of just these views, (N, columns); empty with live teachers.
        strong: (N, C, H, W) uint8 strongly augmented images, for methods that need a second view.
    """

    index: Tensor
    view: Tensor
    targets: list[Tensor] = field(default_factory=list)
    strong: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        return [self.index, self.view, *self.targets, *([] if self.strong is None else [self.strong])]


class Step:
    """A training step on a range of the epoch's plan. Sums of metrics stay on the device: nothing here waits for it.

    Args:
        view: (index, view) -> (B, C, H, W) normalised images.
        normalise: uint8 images -> normalised images (for the strong view).
        teach: (images, cached rows per teacher or []) -> the teachers' outputs.
        ranks: the processes that share each batch; the networks see this process's rows, the objective sees all.
    """

    def __init__(
        self,
        student: Network,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        labels: Tensor,
        view: Callable[[Tensor, Tensor], Tensor],
        normalise: Callable[[Tensor], Tensor],
        teach: Callable[[Tensor, list[Tensor]], tuple[Outputs, ...]],
        recipe: Recipe,
        ranks: Ranks = ALONE,
    ) -> None:
        self.student, self.objective, self.optimizer, self.labels = student, objective, optimizer, labels
        self.view, self.normalise, self.teach, self.recipe, self.ranks = view, normalise, teach, recipe, ranks
        self.epoch = torch.ones((), device=labels.device)
        self.totals: dict[str, Tensor] = {}
        self.plan: Plan | None = None
        self.preacts = recipe.tap_preacts or "preacts" in objective.needs

    def begin(self, plan: Plan, epoch: int, fresh: bool = True) -> None:
        """Start an epoch: take its plan, set the epoch that objectives see, clear the sums (if it starts afresh)."""
        self.plan = plan
        self.epoch.fill_(epoch)
        if fresh:
            for total in self.totals.values():
                total.zero_()

    def __call__(self, start: int, size: int) -> None:
        """Train on rows [start, start + size) of the plan."""
        self.optimizer.zero_grad(set_to_none=True)
        self.compute(slice(start, start + size))

    def compute(self, rows: slice | Tensor) -> None:
        plan, mine = self.plan, self.ranks.share(rows)
        assert plan is not None
        index, targets = plan.index[mine], [t[mine] for t in plan.targets]
        labels = self.labels[index]
        images = self.view(index, plan.view[mine])
        strong = None if plan.strong is None else self.normalise(plan.strong[mine])
        teachers = self.teach(images, targets)
        strong_teacher = None if strong is None else self.teach(strong, [])[0]
        with autocast(self.recipe, labels.device):
            student = self.student(images, preacts=self.preacts)
            strong_student = None if strong is None else self.student(strong, preacts=self.preacts)
        batch = Batch(labels, student, teachers, self.epoch, index, strong_student, strong_teacher)
        batch = self.ranks.gather(batch, rows, self.objective.needs)
        terms = self.objective(batch)
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        self.ranks.reduce(self.student.parameters(), self.objective.parameters())
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained(self.optimizer), self.recipe.clip)
        self.optimizer.step()
        self._count(batch, terms, loss)

    @torch.no_grad()
    def _count(self, batch: Batch, terms: dict[str, Tensor], loss: Tensor) -> None:
        labels = batch.labels
        correct = (self.objective.predict(batch.student).argmax(1) == labels).sum()
        sums = {"loss": loss * len(labels), "correct": correct}
        sums |= {f"loss_{name}": term * len(labels) for name, term in terms.items()}
        for name, value in sums.items():
            if name not in self.totals:
                self.totals[name] = torch.zeros((), dtype=torch.float64, device=labels.device)
            self.totals[name] += value.detach().reshape(())


class GraphStep(Step):
    """The same step captured once per batch size as a CUDA graph, optimiser and gather included.

    The rows come from a cursor on the device that the graph itself advances, so an epoch is nothing but replays.
    """

    def begin(self, plan: Plan, epoch: int, fresh: bool = True) -> None:
        if self.plan is None:
            super().begin(plan, epoch, fresh)
            self.cursor = torch.zeros((), dtype=torch.int64, device=self.labels.device)
            self.at: int | None = None  # where the cursor stands, as far as the host knows
            self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
            return
        kept = self.plan  # the graphs read from these very tensors
        for mine, new in zip(kept.tensors(), plan.tensors(), strict=True):
            mine.copy_(new)
        super().begin(kept, epoch, fresh)

    def __call__(self, start: int, size: int) -> None:
        if size not in self.graphs:
            self.graphs[size] = self._capture(size)
            self.at = None
        if start != self.at:
            self.cursor.fill_(start)
        self.graphs[size].replay()
        self.at = start + size

    def _advance(self, size: int) -> None:
        self.compute(self.cursor + torch.arange(size, device=self.labels.device))
        self.cursor += size

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        """Warm up on a side stream, capture, and leave no trace: the graph has not run when this returns."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        rng = torch.cuda.get_rng_state()
        with self._undone():
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.optimizer.zero_grad(set_to_none=True)
                    self.cursor.zero_()
                    self._advance(size)
            torch.cuda.current_stream().wait_stream(stream)
            self.optimizer.zero_grad(set_to_none=True)  # gradients are born in the graph's own memory
            try:
                with torch.cuda.graph(graph):
                    self._advance(size)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # the warm-up went well: something in here asks the host
                said = str(error.__context__ or error).partition("\n")[0]
                raise DistilleryError(
                    f"a step of {type(self.objective).__name__} cannot be captured as a CUDA graph ({said}): "
                    "set `recipe.graph: false`, or `static = False` in its class"
                ) from error
        torch.cuda.set_rng_state(rng)
        return graph

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Put every tensor that training steps change back in place on leaving (sums that were not there yet: zero)."""
        saved = {name: tensor.clone() for name, tensor in self._state().items()}
        yield
        with torch.no_grad():
            for name, tensor in self._state().items():
                tensor.copy_(saved[name]) if name in saved else tensor.zero_()

    def _state(self) -> dict[str, Tensor]:
        return pack(self.student, self.objective, self.optimizer) | {f"sum.{k}": v for k, v in self.totals.items()}
