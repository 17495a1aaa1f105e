"""One training step: samples, forward, loss, backward, update. Eager on the CPU, one captured graph on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distillery.data.loader import Epoch
from distillery.models.base import Outputs, with_cams
from distillery.objectives.base import Batch
from distillery.records.io import DistilleryError
from distillery.study.blocks import Recipe
from distillery.training.checkpoint import pack
from distillery.training.compiled import Compiled
from distillery.training.counters import Counters
from distillery.training.device import autocast
from distillery.training.optimizer import trained
from distillery.training.parallel import ALONE, Ranks
from distillery.training.sums import Sums
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
        self.see = Compiled(self.student) if recipe.compile else self.student
        self.number = torch.ones((), device=device)
        self.sums = Sums(device)
        self.epoch: Epoch | None = None
        self.preacts = recipe.tap_preacts or "preacts" in self.objective.needs

    def begin(self, epoch: Epoch, number: int, fresh: bool = True) -> None:
        """Start an epoch: set the number that objectives see, clear the sums (if it starts afresh)."""
        self.epoch = epoch
        self.number.fill_(number)
        if fresh:
            self.sums.clear()

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
        with autocast(self.recipe, self.device), self.ranks.own_draws(rows, self.device):
            student = self.see(inputs, preacts=self.preacts)
            if "cams" in self.objective.needs:
                student = with_cams(self.student, student)
            strong_student = None if mine.strong is None else self.see(mine.strong, preacts=self.preacts)
        batch = Batch(mine.targets, student, teachers, self.number, mine.index, strong_student, strong_teacher)
        batch = self.ranks.gather(batch, rows, self.objective.needs)
        terms = self.objective(batch)
        values, loss = self._update(terms)
        for more in self.objective.then(batch):
            self.optimizer.zero_grad(set_to_none=True)
            self._update(more)
        self._count(batch, list(terms), values, loss)

    def _update(self, terms: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Take the optimiser's step down the sum of n terms; return them, (n,), and it. No gradient, no change."""
        values = torch.stack(list(terms.values()))
        loss = values.sum()
        loss.backward()
        self.ranks.reduce(self.student.parameters(), self.objective.parameters())
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained(self.optimizer), self.recipe.clip)
        self.optimizer.step()
        return values, loss

    @torch.no_grad()
    def _count(self, batch: Batch, names: list[str], values: Tensor, loss: Tensor) -> None:
        losses = torch.cat([loss.reshape(1), values.reshape(-1)]) * len(batch.index)
        self.sums.add(["loss", *(f"loss_{name}" for name in names)], losses)
        for name, value in self.task.seen(self.objective.predict(batch.student), batch.targets).items():
            self.sums.add([f"seen_{name}"], value.reshape(1))

    @property
    def totals(self) -> dict[str, Tensor]:
        """What was counted since the epoch began: () float64 by name, views of the running sums."""
        return self.sums.by_name()

    @totals.setter
    def totals(self, totals: dict[str, Tensor]) -> None:
        self.sums.load(totals)


class GraphStep(Step):
    """The same step captured once per batch size as a CUDA graph, optimiser and gather included.

    The rows come from a cursor on the device that the graph itself advances, so an epoch is nothing but replays.
    Warm-up and capture have a stream of the student's own: torch's one capture stream, and with it a workspace of
    cuBLAS, would be shared by all students of a process, whose graphs could not run side by side.
    """

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.counters = Counters(self.student, self.objective)

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        """Where graphs are captured."""
        return torch.cuda.Stream(self.device)

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

    def compute(self, rows: slice | Tensor) -> None:
        with self.counters.together():
            super().compute(rows)

    def _advance(self, size: int) -> None:
        self.compute(self.cursor + torch.arange(size, device=self.device))
        self.cursor += size

    def _warm_up(self, size: int) -> None:
        """Take three steps from the epoch's beginning; if a compiled network is to come, one more as it is before."""
        see, self.see = self.see, self.student
        for i in range(4 if self.recipe.compile else 3):
            self.optimizer.zero_grad(set_to_none=True)
            self.cursor.zero_()
            self._advance(size)
            if i == 0:  # the counters have seen by now how often each normalisation is passed
                self.see = see

    def _capture(self, size: int) -> torch.cuda.CUDAGraph:
        """Warm up on the side stream, capture, and leave no trace: the graph has not run when this returns."""
        graph, stream = torch.cuda.CUDAGraph(), self.stream
        rng = torch.cuda.get_rng_state()
        with self._undone():
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._warm_up(size)
            torch.cuda.current_stream().wait_stream(stream)
            self.optimizer.zero_grad(set_to_none=True)  # gradients are born in the graph's own memory
            try:
                with torch.cuda.graph(graph, stream=stream):
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
