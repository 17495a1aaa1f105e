"""Several students in one process, a step of each in turn; on CUDA on streams of their own, so that they overlap."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from distillery.data.loader import Loader
from distillery.study.blocks import Recipe
from distillery.training.checkpoint import Checkpoint
from distillery.training.loop import Diverged, History, Preempted, Stop, fit, fitting
from distillery.training.parallel import ALONE, Ranks
from distillery.training.progress import Progress
from distillery.training.teaching import TeacherSource
from distillery.training.trainee import Trainee

Fitting = Generator[None, None, History]


class Turn:
    """A student in training, with random numbers of its own: a step of another one does not touch them."""

    def __init__(self, fitting: Fitting, device: torch.device, seed: int) -> None:
        self.fitting, self.on_cuda, self.seed = fitting, device.type == "cuda", seed
        self.random, self.begun = torch.get_rng_state(), False
        if self.on_cuda:
            with torch.cuda.device(device):
                self.stream = torch.cuda.Stream(device)
                self.default = torch.cuda.default_generators[torch.cuda.current_device()]
            self.stream.wait_stream(torch.cuda.current_stream(device))  # data and teachers are being put in place there
            self.generator = self.default.clone_state()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let the body be this student's. Captured graphs keep to the generator that was the default one meanwhile."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.random)
        with ExitStack() as stack:
            stack.callback(torch.set_rng_state, before)
            if self.on_cuda:
                stack.callback(self.default.graphsafe_set_state, self.default.graphsafe_get_state())
                self.default.graphsafe_set_state(self.generator)
                stack.enter_context(torch.cuda.stream(self.stream))
            yield
            self.random = torch.get_rng_state()
            if self.on_cuda and not self.begun:  # what all share, padded images for one, is made in the first step
                self.stream.synchronize()
            self.begun = True


@dataclass
class Run:
    """A student to be trained, and where its state and its progress go."""

    trainee: Trainee
    seed: int
    checkpoint: Checkpoint | None = None
    progress: Progress | None = None


def fit_all(
    runs: Sequence[Run], loader: Loader, teacher: TeacherSource | None, recipe: Recipe, ranks: Ranks = ALONE
) -> list[History]:
    """Train some students, all at once if they are several, and return their histories. Each has the bits it has alone.

    On a signal all of them write their checkpoints, then Preempted is raised. If the loss of one is not finite, the
    others are trained on, to checkpoints that keep them; then its error is raised.
    """
    with ExitStack() as stack:
        reports = [run.progress and stack.enter_context(run.progress) for run in runs]
        if len(runs) == 1:
            run = runs[0]
            try:
                return [fit(run.trainee, loader, teacher, recipe, run.seed, run.checkpoint, reports[0], ranks)]
            except Diverged as error:
                if ranks.first:
                    print(f"seed {run.seed} ends here ({error})", flush=True)
                raise
        stop = stack.enter_context(Stop())
        made = [
            fitting(run.trainee, loader, teacher, recipe, run.seed, stop, run.checkpoint, report)
            for run, report in zip(runs, reports, strict=True)
        ]
        turns = [Turn(each, loader.device, run.seed) for each, run in zip(made, runs, strict=True)]
        return _in_turn(turns, loader.device)


def _in_turn(all_turns: Sequence[Turn], device: torch.device) -> list[History]:
    histories: dict[Turn, History] = {}
    stopped: Preempted | None = None
    failed: Diverged | None = None
    turns = [*all_turns]
    while turns:
        for turn in [*turns]:
            try:
                with turn.taken():
                    next(turn.fitting)
            except StopIteration as done:
                histories[turn] = done.value
            except Preempted as error:
                stopped = error
            except Diverged as error:
                failed = failed or error
                print(f"seed {turn.seed} ends here ({error}); {len(turns) - 1} other student(s) go on", flush=True)
            else:
                continue
            turns.remove(turn)
            if turn.on_cuda:
                torch.cuda.current_stream(device).wait_stream(turn.stream)
    if ended := stopped or failed:
        raise ended
    return [histories[turn] for turn in all_turns]
