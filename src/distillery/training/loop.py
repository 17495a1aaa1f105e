"""The fit loop. It knows no method by name: it lays out an epoch, replays the step, and counts.

All randomness of an epoch is a pure function of (seed, epoch): any epoch can be replayed, and a run that was killed and
resumed ends with the weights of an undisturbed one, bit for bit on the same hardware.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from distillery.data.loader import Epoch, Loader
from distillery.data.precision import dtype_of, memory_format
from distillery.data.views import seed_for
from distillery.models.base import Network, Outputs
from distillery.models.drop_path import set_drop_path
from distillery.models.layers import NARROW, overrunning
from distillery.objectives.base import Objective
from distillery.records.io import DistilleryError, below
from distillery.records.leaving import SAID, Stopped, ignored, silence_a_closed_terminal
from distillery.study.blocks import Recipe
from distillery.training.average import Average
from distillery.training.checkpoint import Checkpoint, State, pack, unpack
from distillery.training.norm import share_norms
from distillery.training.optimizer import make_optimizer, set_rate
from distillery.training.parallel import ALONE, Ranks
from distillery.training.step import GraphStep, Step
from distillery.training.teaching import TeacherSource
from distillery.training.trainee import Trainee

Report = Callable[[dict[str, Any]], None]
History = list[dict[str, Any]]


class Preempted(Stopped):
    """The scheduler wants the machine back, or the user pressed Ctrl-C; the next start goes on from the saved state."""


class Diverged(DistilleryError):
    """A student's loss is not finite: a failure of its own, which says nothing about others."""


def fit(
    trainee: Trainee,
    loader: Loader,
    teacher: TeacherSource | None,
    recipe: Recipe,
    seed: int,
    checkpoint: Checkpoint | None = None,
    report: Report | None = None,
    ranks: Ranks = ALONE,
) -> History:
    """Train for `recipe.epochs` epochs on the loader's device; return the history, one record per epoch.

    Scores are the task's, losses are means over samples. Every process of `ranks` makes the same call; the first of
    them writes. Raises DistilleryError if the loss is not finite, and Preempted on SIGTERM, SIGINT (Ctrl-C), SIGHUP and
    SIGUSR1 after writing the checkpoint.
    """
    with Stop() as stop:
        running = fitting(trainee, loader, teacher, recipe, seed, stop, checkpoint, report, ranks)
        while True:
            try:
                next(running)
            except StopIteration as done:
                history: History = done.value
                return history


def fitting(
    trainee: Trainee,
    loader: Loader,
    teacher: TeacherSource | None,
    recipe: Recipe,
    seed: int,
    stop: Stop,
    checkpoint: Checkpoint | None = None,
    report: Report | None = None,
    ranks: Ranks = ALONE,
) -> Generator[None, None, History]:
    """`fit` step by step: yields after each, so that several students can be trained in turn (see together.py)."""
    student, objective = trainee.student, trainee.objective
    _prepare(student, objective, recipe, loader.device, ranks)
    optimizer = make_optimizer(trainee.named_parameters(), recipe, loader.device, trainee.undecayed())
    schedule = recipe.part("schedule")
    average = Average(trainee, recipe.ema) if recipe.ema else None
    step = make_step(trainee, loader, teacher, optimizer, recipe, ranks)
    parts = student, objective, optimizer, average
    state = State()
    if checkpoint and (found := checkpoint.load()):
        state, tensors = found
        unpack(tensors, *parts)
        step.totals = below(tensors, "sum.")
        if ranks.first:
            print(f"going on after {state.epoch} of {recipe.epochs} epochs and {state.step} steps", flush=True)
    ranks.agree(checkpoint and checkpoint.key, state.epoch, state.step)

    def save(if_due: bool = False) -> None:
        if not (checkpoint and ranks.first) or (if_due and not checkpoint.due):
            return
        if if_due and not math.isfinite(step.totals["loss"]):  # the epoch will end in an error: keep what is sound
            return
        sums = {f"sum.{name}": total for name, total in step.totals.items()}
        checkpoint.save(state, pack(*parts) | sums)

    count, size = loader.count, recipe.batch_size
    steps, tested = math.ceil(count / size), average.tested() if average else {"": trainee}
    rate = math.nan
    ahead: Epoch | None = None

    def lay_out(number: int) -> Epoch:
        cached = partial(teacher.rows, seed=seed) if teacher else None
        return loader.epoch(seed, number, "strong" in objective.needs, cached)

    while state.epoch < recipe.epochs:
        epoch, began = state.epoch + 1, time.monotonic()
        step.begin(ahead or lay_out(epoch), epoch, fresh=state.step == 0)
        if state.step == 0:
            torch.manual_seed(seed_for(seed, "epoch", epoch))
        student.train()
        objective.train()
        for start in range(state.step * size, count, size):
            if (now := schedule.rate(epoch, state.step / steps)) != rate:
                set_rate(optimizer, rate := now)
            step(start, min(size, count - start))
            state.step += 1
            if average:
                average.update((epoch - 1) * steps + state.step)
            if ranks.any(stop.asked):
                save()
                stop.leave(f"in epoch {epoch} of {recipe.epochs}", ranks.first)
            save(if_due=True)  # an epoch can take longer than anybody wants to lose
            yield
        if epoch < recipe.epochs:  # laid out now, while a GPU still works off its queue of steps
            ahead = lay_out(epoch + 1)
        record = _record(step, count, epoch, schedule.rate(epoch, (steps - 1) / steps))
        if epoch % recipe.test_every == 0 or epoch == recipe.epochs:
            for whose, weights in tested.items():
                scores = trainee.task.test(weights, loader, recipe, ranks)
                record |= {whose + name: score for name, score in scores.items()}
        state = State(epoch, 0, [*state.history, record])
        if report:
            report(record | {"seconds": time.monotonic() - began, "epochs": recipe.epochs})
        save(if_due=True)
    save()
    if ranks.any(stop.asked):  # while the last epoch was tested: another run may follow in this process
        stop.leave(f"after {recipe.epochs} of {recipe.epochs} epochs", ranks.first)
    if average:
        average.finish()
    student.eval()
    objective.eval()
    return state.history


def _prepare(student: Network, objective: Objective, recipe: Recipe, device: torch.device, ranks: Ranks) -> None:
    """Bring both to the device, in the recipe's type and memory format, with what else the recipe says of them."""
    by_onednn = device.type == "cpu" and recipe.channels_last and recipe.precision != "float64"
    if by_onednn and (unsound := overrunning(student) + overrunning(objective)):
        raise DistilleryError(
            f"{unsound[0]} is a 1x1 convolution with a stride over fewer than {NARROW} channels, in whose gradient "
            "torch writes beyond its memory on a CPU (uxlfoundation/oneDNN#6035): say `recipe.channels_last: false`"
        )
    student.to(device, dtype_of(recipe)).to(memory_format=memory_format(recipe))
    objective.to(device, dtype_of(recipe))
    share_norms(student, ranks)
    if recipe.drop_path is not None:
        set_drop_path(student, recipe.drop_path)
    objective.smooth(recipe.label_smoothing)


def make_step(
    trainee: Trainee,
    loader: Loader,
    teacher: TeacherSource | None,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    ranks: Ranks = ALONE,
) -> Step:
    """Join student, objective and teachers into one step: captured for one process on CUDA, else eager."""
    graph = loader.device.type == "cuda" and recipe.graph and ranks.size == 1
    kind = GraphStep if graph and loader.static and trainee.objective.static else Step
    return kind(trainee, optimizer, teacher.teach if teacher else _nobody, recipe, loader.device, ranks)


def _nobody(inputs: Any, cached: list[Tensor]) -> tuple[Outputs, ...]:
    return ()


def _record(step: Step, count: int, epoch: int, rate: float) -> dict[str, Any]:
    sums = {name: total.item() for name, total in step.totals.items()}
    if not math.isfinite(sums["loss"]):
        raise Diverged(
            f"the training loss is {sums['loss'] / count} in epoch {epoch}: lower `recipe.lr` or the method's weights"
        )
    seen = {name.removeprefix("seen_"): sums.pop(name) for name in [*sums] if name.startswith("seen_")}
    record: dict[str, Any] = {"epoch": epoch, "lr": rate}
    record |= {f"train_{name}": value for name, value in step.task.scores(seen, count).items()}
    return record | {name: total / count for name, total in sums.items()}


class Stop:
    """While entered, SIGTERM, SIGINT, SIGHUP and SIGUSR1 (Slurm's warning) ask it to stop after the running step."""

    def __init__(self) -> None:
        self.by = 0

    @property
    def asked(self) -> bool:
        return self.by != 0

    def leave(self, where: str, tell: bool) -> NoReturn:
        stopped = Preempted(self.by or signal.SIGTERM)  # 0: another process of the run was asked
        if tell:
            then = "the state is saved, the same command goes on from there"
            print(f"stopped {where} by {stopped.by}: {then}", flush=True)
        stopped.told = True
        raise stopped

    def _ask(self, number: int, _: object) -> None:
        silence_a_closed_terminal(number)
        self.by = self.by or number

    def __enter__(self) -> Stop:
        self.before = {s: signal.signal(s, self._ask) for s in SAID if not ignored(s)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
