"""What Slurm knows of the study's jobs. Where there is none, or it does not answer soon: nothing, never an error.

Snakemake's Slurm plugin names jobs and their logs by stage and wildcards, not by study, and several studies may use one
working copy. So a log counts only if it, or the log of the Snakemake that submitted its job, names the study's outputs;
and an entry of the queue does not count if its marker, or the log of its Snakemake, names those of another study.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from distillery.pipeline import internals
from distillery.pipeline.job import Job

TIMEOUT = 3.0  # seconds; Slurm's own commands wait for a lost controller for a minute
WAITS = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
# Number (in an array: 12_3), the same as the job itself knows it, state, node, why it waits, name (the same for
# all that one Snakemake submits), folder, comment.
FIELDS = "%i|%A|%T|%N|%r|%j|%Z|%k"


@dataclass(frozen=True)
class Queued:
    """One entry of Slurm's queue, waiting or running."""

    number: str
    inside: str
    state: str
    node: str
    reason: str
    run: str
    comment: str

    @property
    def waits(self) -> bool:
        return self.state in WAITS


@dataclass
class Queue:
    """The user's entries that were submitted from this working copy.

    Attributes:
        silent: why it could not be asked, in one clause, although Slurm is here; "" if there is nothing to say.
        entries: by the name of the job that they do. Whose an array's are is known until Snakemake starts its jobs on
            their node; from then on their locks and logs tell.
        unnamed: entries that wait and of which it is not known whose they are.
        at_work: numbers of those that run, as they know them themselves.
    """

    answered: bool = False
    silent: str = ""
    entries: dict[str, list[Queued]] = field(default_factory=lambda: defaultdict(list))
    unnamed: int = 0
    at_work: set[str] = field(default_factory=set)

    @cached_property
    def runs(self) -> list[internals.Run]:
        """All starts of Snakemake here that submitted jobs; read only where they are needed."""
        return internals.runs()

    def of(self, job: Job) -> Queued | None:
        """The entry that does this job, else one that will."""
        return min(self.entries.get(job.name, []), key=lambda entry: entry.waits, default=None)


def ask(jobs: list[Job]) -> Queue:
    """Ask Slurm for the entries of these jobs that were submitted from the present folder."""
    queue = Queue()
    if not shutil.which("squeue"):
        return queue
    if why := internals.unknown():
        queue.silent = why
        return queue
    command = ["squeue", "--me", "--array", "--noheader", f"--format={FIELDS}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return queue
    queue.answered = done.returncode == 0
    found = list(_ours(done.stdout)) if queue.answered else []
    outputs = {str(path): job.name for job in jobs for path in job.outputs.values()}
    marked, foreign = defaultdict(set), set()
    for output, number in internals.submitted() if found else ():
        if output in outputs:
            marked[number].add(outputs[output])
        else:
            foreign.add(number)
    comments = {internals.comment(job.stage, job.keys): job.name for job in jobs}
    for entry in found:
        if entry.number not in marked and (entry.number in foreign or _of_another_study(entry, queue, jobs)):
            continue
        alone = entry.comment in comments and "_" not in entry.number  # an array's comment names its first job only
        names = {comments[entry.comment]} if alone else marked[entry.number]
        for name in names:
            queue.entries[name].append(entry)
        queue.unnamed += entry.waits and not names
        queue.at_work |= set() if entry.waits else {entry.inside}
    return queue


def _ours(listed: str) -> Iterator[Queued]:
    here = Path.cwd().resolve()
    for line in listed.splitlines():
        number, inside, state, node, reason, run, directory, comment = line.split("|", 7)
        if comment.startswith(internals.COMMENT) and Path(directory).resolve() == here:
            yield Queued(number, inside, state, node, reason, run, comment)


def _of_another_study(entry: Queued, queue: Queue, jobs: list[Job]) -> bool:
    """Whether the Snakemake that submitted an entry was at work on another study than that of these jobs."""
    runs = [run for run in queue.runs if run.name == entry.run]
    return bool(runs) and not any(jobs[0].study in run.studies for run in runs)


def slurm_log(job: Job, queue: Queue) -> Path | None:
    """The newest log of Slurm itself about a job; it alone says why a job died before or outside of its command."""
    found = internals.slurm_logs(job.stage, job.keys)
    return max((path for path in found if _is_about(path, job, queue)), key=_changed, default=None)


def _is_about(log: Path, job: Job, queue: Queue) -> bool:
    with suppress(OSError):
        if re.search(rf"(?<![\w./-]){re.escape(str(job.locked))}", log.read_text(errors="replace")):
            return True
    number = log.stem.partition("_")[0]  # in an array: 12_3
    return any(number in run.numbers and job.study in run.studies for run in queue.runs)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
