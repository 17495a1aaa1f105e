"""How long the rest of a study will take, judged by what its finished jobs took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from distillery.pipeline.job import Job
from distillery.records.io import DistilleryError, read_json
from distillery.records.schema import RunRecord, read
from distillery.status.states import DONE, RUNNING, STALE, Standing
from distillery.study.model import Study

_SAMPLES = 3  # finished jobs of one cell that are looked at


@dataclass
class Remaining:
    """Seconds of work left, and seconds until the end if as many jobs as now are at work all the time.

    `unknown` counts the jobs, by stage, of which none like them has finished yet.
    """

    work: float = 0.0
    clock: float = 0.0
    at_once: int = 1
    unknown: Counter[str] = field(default_factory=Counter)
    gpu: bool = False


def remaining(standing: Standing, study: Study, now: float) -> Remaining:
    """Estimate the rest, from the wall seconds of finished jobs: of the same pair and method if there are any, else of
    the same pair, else of the study, per epoch and run, and times what the method costs elsewhere. Each job that is yet
    to start takes besides what a process takes to start."""
    rates = _Rates(standing, study)
    left = Remaining(at_once=max(1, len(standing.of(RUNNING))), gpu=rates.gpu)
    longest = 0.0
    for status in standing.statuses:
        if status.state == DONE:
            continue
        whole = rates.seconds(status.job)
        if whole is None:
            left.unknown[status.job.stage] += 1
            continue
        seconds = whole * (1 - status.fraction) + (rates.start if status.state != RUNNING else 0.0)
        if status.state == RUNNING and not status.fraction and status.since:
            seconds = max(0.0, whole - (now - status.since))
        left.work += seconds
        longest = max(longest, seconds)
    left.clock = max(left.work / left.at_once, longest)
    return left


class _Rates:
    """Seconds per unit of work: one epoch of one run for jobs that train, one job for all others.

    `start` is what a process takes to start, in seconds.
    """

    def __init__(self, standing: Standing, study: Study) -> None:
        self.study, self.gpu = study, False
        starts: list[float] = []
        samples: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for job in (status.job for status in standing.of(DONE, STALE)):
            rates = samples[self._key(job)]
            if len(rates) < _SAMPLES and (measured := self._rate(job)) is not None:
                rates.append(measured[0])
                starts.append(measured[1])
                self.gpu = self.gpu or _on_gpu(job)
        self.start = median(starts) if starts else 0.0
        self.cells = {key: median(rates) for key, rates in samples.items() if rates}
        self.groups: dict[tuple[str, ...], float] = {}
        for key in {key[:2] for key in self.cells} | {key[:1] for key in self.cells}:
            self.groups[key] = median(rate for cell, rate in self.cells.items() if cell[: len(key)] == key)

    def seconds(self, job: Job) -> float | None:
        """What a whole job takes; None if nothing like it has finished."""
        key = self._key(job)
        rate = self.cells.get(key)
        if rate is None:
            like = self.groups.get(key[:2], self.groups.get(key[:1]))
            rate = None if like is None else like * self._costs(key)
        return None if rate is None else rate * self._units(job)

    def _costs(self, key: tuple[str, ...]) -> float:
        """How much more than its pair's median a method takes, in the pairs where it has finished."""
        elsewhere = [rate / self.groups[k[:2]] for k, rate in self.cells.items() if k[0] == key[0] and k[2:] == key[2:]]
        return median(elsewhere) if elsewhere and len(key) == 3 and min(elsewhere) > 0 else 1.0

    def _key(self, job: Job) -> tuple[str, ...]:
        """Jobs with one key take the same time per unit; those that share its beginning take similar time."""
        if job.stage == "teacher":
            return f"teacher to {self.study.teachers[job.keys[0]].source}", *job.keys
        return job.stage, *job.keys[:2]

    def _units(self, job: Job) -> float:
        if job.stage == "distill":
            return len(job.seeds) * self.study.recipe_for(*job.keys[:2]).epochs
        if job.stage == "evaluate":
            return len(job.seeds)
        teacher = self.study.teachers[job.keys[0]] if job.stage == "teacher" else None
        return self.study.recipe_for_teacher(job.keys[0]).epochs if teacher and teacher.source == "train" else 1

    def _rate(self, job: Job) -> tuple[float, float] | None:
        """Seconds per unit of a finished job, and what it took to start; of one that was killed and continued, by the
        epochs of its last start."""
        try:
            facts = read_json(job.provenance)
            epochs = sum(map(len, facts.get("epoch_seconds", {}).values()))
            return facts["wall_seconds"] / (epochs or self._units(job)), facts.get("start_seconds", 0.0)
        except (DistilleryError, KeyError):
            return None  # made elsewhere and pulled: what it took is not known


def _on_gpu(job: Job) -> bool:
    """Whether a student was trained on one; the records of other stages do not say."""
    try:
        return job.stage == "distill" and read(job.record, RunRecord).device.startswith("cuda")
    except DistilleryError:
        return False


def words(seconds: float) -> str:
    """A duration as people say it: `40 s`, `12 min`, `2 h 10 min`, `3 days 4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return _parts((hours, "h"), (rest, "min"))
    return _parts((hours // 24, "days"), (hours % 24, "h"))


def _parts(*parts: tuple[int, str]) -> str:
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def sentence(left: Remaining) -> str:
    """Say it in one sentence."""
    unknown = _listed(f"{count} {stage}" for stage, count in left.unknown.items())
    if not left.work:
        return "not known yet: nothing like the rest has finished" if unknown else "nothing is left to do"
    said = f"about {words(left.clock)}" + (f" with {left.at_once} at once" if left.at_once > 1 else ", one at a time")
    if left.gpu:
        hours = left.work / 3600
        said += f"; {hours:,.0f} GPU-hours" if hours > 10 else f"; {hours:.1f} GPU-hours"
    elif left.at_once > 1:
        said += f"; {words(left.work)} of work"
    return said + (f"; not counting {unknown}, of which none has finished yet" if unknown else "")


def _listed(items: Iterable[str]) -> str:
    *first, last = [*items] or [""]
    return f"{', '.join(first)} and {last}" if first else last
