"""The state of every job of a study: done, running, waiting, failed, stopped, stale or to do."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from distillery.errors import DistilleryError
from distillery.pipeline.current import MISSING, Judge
from distillery.pipeline.job import Job, Plan, text_of
from distillery.records.io import read_json
from distillery.status.locks import Holder, Writers, holder
from distillery.status.slurm import Queue, ask, slurm_log

STATES = ("done", "running", "waiting", "failed", "stopped", "stale", "to do")
DONE, RUNNING, WAITING, FAILED, STOPPED, STALE, TODO = STATES
_SILENT = 3600.0  # seconds that a process of another machine may be silent; an epoch can take long
_SILENTLY = (
    "failed without a message: it was killed (by kill -9, or for its memory), or Slurm refused it, whose reason "
    "`snakemake --profile slurm` ends with"
)
_TAIL = 1 << 12  # bytes of a stage's own log: its last lines
_SLURM_TAIL = 1 << 18  # of Slurm's: Snakemake names every input of a failed job, twice, after what Slurm wrote
_PROGRESS = re.compile(r"(?:seed (\d+))?: (epoch|image|MB) (\d+)/(\d+)")


@dataclass(frozen=True)
class Status:
    """A job and its state.

    Attributes:
        why: of a failed or stopped one the last line of its log; of a stale one what changed; of a waiting one Slurm's
            reason.
        host: where it runs.
        since: when it began (seconds since 1970); of a failed or stopped one, when it was last heard of.
        progress: how far it is, in words.
        fraction: the same as a number.
    """

    job: Job
    state: str
    why: str = ""
    host: str = ""
    since: float = 0.0
    progress: str = ""
    fraction: float = 0.0


@dataclass(frozen=True)
class Standing:
    """Where a whole study stands."""

    statuses: list[Status]
    queue: Queue

    def of(self, *states: str) -> list[Status]:
        return [s for s in self.statuses if s.state in states]

    def counts(self, stage: str) -> Counter[str]:
        return Counter(s.state for s in self.statuses if s.job.stage == stage)


def look(plan: Plan) -> Standing:
    """Find the state of every job."""
    queue, writers, judge = ask(plan.jobs), Writers(), Judge(plan)
    found: dict[str, Status] = {}
    for job in plan:
        unmade = [found[earlier.name] for earlier in plan.needs(job) if found[earlier.name].state != DONE]
        found[job.name] = _state(job, unmade, queue, writers, judge)
    return Standing(list(found.values()), queue)


def _state(job: Job, unmade: list[Status], queue: Queue, writers: Writers, judge: Judge) -> Status:
    held, queued = holder(job.locked), queue.of(job)
    if held and _alive(held, job, queue):
        return _running(job, held.host, held.since)
    verdict = judge.verdict(job)
    if verdict.current:
        return Status(job, DONE)
    if verdict.state == MISSING:
        if job.log in writers:
            return _running(job, "", job.log.stat().st_mtime)
        left = _unfinished(job, held, queue)
    else:
        absent = unmade and verdict.why.endswith(" is missing")  # which does not say what becomes of it
        left = Status(job, STALE, _upstream(unmade[0]) if absent else verdict.why)
    if not queued:
        return left
    return Status(job, WAITING, queued.reason) if queued.waits else _running(job, queued.node, 0.0)


def _upstream(first: Status) -> str:
    stage = first.job.stage
    again = {
        STALE: f"made from a stale {stage}",
        TODO: f"its {stage} is missing",
        FAILED: f"its {stage} failed",
        STOPPED: f"its {stage} was stopped",
    }
    return again.get(first.state, f"its {stage} is being made again")


def _alive(held: Holder, job: Job, queue: Queue) -> bool:
    """Whether the maker of an output is at work. Elsewhere: as Slurm says, or while it gives signs of life."""
    if held.alive is not None:
        return held.alive
    if queue.answered and held.job:
        return held.job in queue.at_work
    return time.time() - _last_sign(held, job) < _SILENT


def _last_sign(held: Holder, job: Job) -> float:
    return max([held.since, *(p.stat().st_mtime for p in (job.log, *job.checkpoints) if p.exists())])


def _running(job: Job, host: str, since: float) -> Status:
    found = _PROGRESS.findall(_tail(job.log))
    if not found:
        return Status(job, RUNNING, host=host, since=since)
    seed, unit, done, total = found[-1]
    fraction, words = int(done) / max(int(total), 1), f"{unit} {done}/{total}"
    if len(job.seeds) > 1 and seed and int(seed) in job.seeds:
        index = job.seeds.index(int(seed))
        fraction, words = (index + fraction) / len(job.seeds), f"run {index + 1}/{len(job.seeds)}, {words}"
    return Status(job, RUNNING, host=host, since=since, progress=words, fraction=fraction)


def _unfinished(job: Job, held: Holder | None, queue: Queue) -> Status:
    """A job without outputs that nobody makes: never begun, stopped in order, or failed, or killed."""
    finished = _mtime(job.provenance)  # its outputs were there once, and were removed since
    of_slurm = slurm_log(job, queue)
    logged = max(_mtime(job.log), _mtime(of_slurm))
    if not held and (logged <= finished or logged <= _told(job)):
        return Status(job, TODO)
    lines = _tail(job.log).splitlines()
    said = lines[-1] if lines else ""
    if not said.startswith("distillery: ") and of_slurm and (reason := _slurm_reason(of_slurm)):
        said = reason + (f"; before that: {said}" if said else "")
    killed = f"killed (process {held.pid} on {held.host})" if held else ""
    why = "; ".join(filter(None, (killed, said))) or _SILENTLY
    if "goes on from there" not in why and any(path.exists() for path in job.checkpoints):
        why += " [continues from its checkpoint]"
    since = max(logged, held.since if held else 0.0)
    return Status(job, STOPPED if why.startswith("stopped ") else FAILED, why, since=since)


def _told(job: Job) -> float:
    """Since when it is told what it is told now: an older log says nothing of it. For ever, if it is yet to be told."""
    try:
        return _mtime(job.path) if text_of(read_json(job.path)) == text_of(job.spec) else math.inf
    except DistilleryError:
        return 0.0  # no plan was written


def _slurm_reason(log: Path) -> str:
    """What Slurm wrote about the end of a job: cancelled, time limit, out of memory, node failure."""
    found = re.findall(r"^slurmstepd\S*: error: (.*(?:\*\*\*|oom).*)$", _tail(log, _SLURM_TAIL), re.MULTILINE)
    return found[-1].strip("* ") if found else ""


def _mtime(path: Path | None) -> float:
    try:
        return path.stat().st_mtime if path else 0.0
    except OSError:
        return 0.0


def _tail(path: Path, size: int = _TAIL) -> str:
    """The last lines of a file that are not blank, without a line that is cut at its start."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(line for line in text.replace("\r", "\n").splitlines() if line.strip())
