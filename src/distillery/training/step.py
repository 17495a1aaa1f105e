"""One training step: samples, forward, loss, backward, update. Eager on the CPU, one captured graph on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from distillery.data.loader import Epoch
from distillery.models.base import Outputs
from distillery.objectives.base import Batch
from distillery.records.io import DistilleryError
from distillery.study.blocks import Recipe
from distillery.training.checkpoint import pack
from distillery.training.device import autocast
from distillery.training.optimizer import trained
from distillery.training.parallel import ALONE, Ranks
from distillery.training.trainee import Trainee


class Step:
    """A training step on rows of an epoch. Sums of metrics stay on the device: nothing here waits for it.

    Args:
        teach: (inputs, cached rows per teacher or []) -> the teachers' outputs.
        ranks: the processes that share each batch; the networks see this process's rows, the objective sees all.
    """

    def __init__(
        self,
        trainee: Trainee,
        optimizer: torch.optim.Optimizer,
        teach: Callable[[Any, list[Tensor]], tuple[Outputs, ...]],
        recipe: Recipe,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.student, self.objective, self.task = trainee.student, trainee.objective, trainee.task
        self.optimizer, self.teach, self.recipe, self.ranks, self.device = optimizer, teach, recipe, ranks, device
        self.number = torch.ones((), device=device)
        self.totals: dict[str, Tensor] = {}
        self.epoch: Epoch | None = None
        self.preacts = recipe.tap_preacts or "preacts" in self.objective.needs

    def begin(self, epoch: Epoch, number: int, fresh: bool = True) -> None:
        """Start an epoch: set the number that objectives see, clear the sums (if it starts afresh)."""
        self.epoch = epoch
        self.number.fill_(number)
        if fresh:
            for total in self.totals.values():
                total.zero_()

    def __call__(self, start: int, size: int) -> None:
        """Train on rows [start, start + size) of the epoch."""
        self.optimizer.zero_grad(set_to_none=True)
        self.compute(slice(start, start + size))

    def compute(self, rows: slice | Tensor) -> None:
        """Take the optimiser's step on these rows. Gradients are to be gone before."""
        assert self.epoch is not None
        mine = self.epoch.batch(self.ranks.share(rows))
        inputs = self.objective.shown(mine.inputs, mine.targets)
        teachers = self.teach(inputs, mine.cached)
        strong_teacher = None if mine.strong is None else self.teach(mine.strong, [])[0]
        with autocast(self.recipe, self.device):
            student = self.student(inputs, preacts=self.preacts)
            strong_student = None if mine.strong is None else self.student(mine.strong, preacts=self.preacts)
        batch = Batch(mine.targets, student, teachers, self.number, mine.index, strong_student, strong_teacher)
        batch = self.ranks.gather(batch, rows, self.objective.needs)
        terms = self.objective(batch)
        loss = self._update(terms)
        for more in self.objective.then(batch):
            self.optimizer.zero_grad(set_to_none=True)
            self._update(more)
        self._count(batch, terms, loss)

    def _update(self, terms: dict[str, Tensor]) -> Tensor:
        """Take the optimiser's step down the sum of some terms; return it. What has no gradient stays as it is."""
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        self.ranks.reduce(self.student.parameters(), self.objective.parameters())
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained(self.optimizer), self.recipe.clip)
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def _count(self, batch: Batch, terms: dict[str, Tensor], loss: Tensor) -> None:
        sums = {"loss": loss * len(batch.index)}
        sums |= {
            f"seen_{n}": v for n, v in self.task.seen(self.objective.predict(batch.student), batch.targets).items()
        }
        sums |= {f"loss_{name}": term * len(batch.index) for name, term in terms.items()}
        for name, value in sums.items():
            if name not in self.totals:
                self.totals[name] = torch.zeros((), dtype=torch.float64, device=self.device)
            self.totals[name] += value.detach().reshape(())


class GraphStep(Step):
    """The same step captured once per batch size as a CUDA graph, optimiser and gather included.

    The rows come from a cursor on the device that the graph itself advances, so an epoch is nothing but replays.
    """

    def begin(self, epoch: Epoch, number: int, fresh: bool = True) -> None:
        if self.epoch is None:
            super().begin(epoch, number, fresh)
            self.cursor = torch.zeros((), dtype=torch.int64, device=self.device)
            self.at: int | None = None  # where the cursor stands, as far as the host knows
            self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
            return
        kept = self.epoch  # the graphs read from these very tensors
        for mine, new in zip(kept.tensors(), epoch.tensors(), strict=True):
            mine.copy_(new)
        super().begin(kept, number, fresh)

    def __call__(self, start: int, size: int) -> None:
        if size not in self.graphs:
            self.graphs[size] = self._capture(size)
            self.at = None
        if start != self.at:
            self.cursor.fill_(start)
        self.graphs[size].replay()
        self.at = start + size

    def _advance(self, size: int) -> None:
        self.compute(self.cursor + torch.arange(size, device=self.device))
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
