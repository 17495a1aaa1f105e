"""What Slurm knows of the study's jobs. Where there is none, or it does not answer soon: nothing, never an error.

Snakemake's Slurm plugin names jobs and their logs by stage and wildcards, not by study, and several studies may use one
working copy. So a log counts only if it, or the log of the Snakemake that submitted its job, names the study's outputs;
and a queued job does not count if its marker, or the log of its Snakemake, names those of another study.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from distillery.pipeline.jobs import Task

TIMEOUT = 3.0  # seconds; Slurm's own commands wait for a lost controller for a minute
LOGS = Path(".snakemake/slurm_logs")  # of Snakemake's Slurm plugin: rule_NAME/WILDCARDS/JOB.log
RUNS = Path(".snakemake/log")  # of Snakemake itself: a log for each time that it was started
MARKERS = Path(".snakemake/incomplete")  # of Snakemake: one file for each output in the making
WAITS = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
# Number (of an array's task: 12_3), the same as the task itself knows it, state, node, why it waits, name (the same for
# all jobs that one Snakemake submits), folder, comment.
FIELDS = "%i|%A|%T|%N|%r|%j|%Z|%k"


@dataclass(frozen=True)
class Job:
    """One job of the queue."""

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


@dataclass(frozen=True)
class Run:
    """One start of Snakemake: the name that it gives its jobs, their numbers, and the studies that its log names."""

    name: str
    numbers: frozenset[str]
    studies: frozenset[str]


@dataclass
class Queue:
    """The user's jobs that were submitted from this working copy for this study.

    Attributes:
        jobs: by the name of the task that they do. Whose an array's or a group's are is known until Snakemake starts
            its tasks on their node; from then on their locks and logs tell.
        unnamed: jobs that wait and of which it is not known whose they are.
        at_work: numbers of the jobs that run, as they know them themselves.
    """

    answered: bool = False
    jobs: dict[str, list[Job]] = field(default_factory=lambda: defaultdict(list))
    unnamed: int = 0
    at_work: set[str] = field(default_factory=set)

    @cached_property
    def runs(self) -> list[Run]:
        """All starts of Snakemake here that submitted jobs; read only where they are needed."""
        return [run for path in RUNS.glob("*.log") if (run := _run(_text(path))).name]

    def of(self, task: Task) -> Job | None:
        """The job that does this task, else one that will."""
        return min(self.jobs.get(task.name, []), key=lambda job: job.waits, default=None)


def ask(tasks: list[Task]) -> Queue:
    """Ask Slurm for the jobs of these tasks that were submitted from the present folder."""
    queue = Queue()
    if not shutil.which("squeue"):
        return queue
    command = ["squeue", "--me", "--array", "--noheader", f"--format={FIELDS}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return queue
    queue.answered = done.returncode == 0
    jobs = list(_ours(done.stdout)) if queue.answered else []
    outputs = {str(path): task.name for task in tasks for path in task.outputs}
    marked, foreign = defaultdict(set), set()
    for output, number in _markers() if jobs else ():
        if output in outputs:
            marked[number].add(outputs[output])
        else:
            foreign.add(number)
    comments = {_comment(task): task.name for task in tasks}
    for job in jobs:
        if job.number not in marked and (job.number in foreign or _of_another_study(job, queue, tasks)):
            continue
        alone = job.comment in comments and "_" not in job.number  # an array's comment names its first task only
        names = {comments[job.comment]} if alone else marked[job.number]
        for name in names:
            queue.jobs[name].append(job)
        queue.unnamed += job.waits and not names
        queue.at_work |= set() if job.waits else {job.inside}
    return queue


def _ours(listed: str) -> Iterator[Job]:
    here = Path.cwd().resolve()
    for line in listed.splitlines():
        number, inside, state, node, reason, run, directory, comment = line.split("|", 7)
        if comment.startswith("rule_") and Path(directory).resolve() == here:
            yield Job(number, inside, state, node, reason, run, comment)


def _comment(task: Task) -> str:
    """The comment that Snakemake's Slurm plugin gives the job of a task."""
    return f"rule_{task.stage}" + (f"_wildcards_{'_'.join(task.keys)}" if task.keys else "")


def _markers() -> Iterator[tuple[str, str]]:
    """Outputs and the number of the job that Snakemake submitted for them.

    A marker's path is its output's, in base64 and cut into names that a file system takes; all but the last begin
    with @.
    """
    for file in MARKERS.rglob("*"):
        with suppress(OSError, ValueError):
            number = json.loads(file.read_text())["external_jobid"]
            text = "".join(part.removeprefix("@") for part in file.relative_to(MARKERS).parts)
            yield base64.urlsafe_b64decode(text).decode(), str(number)


def _run(text: str) -> Run:
    name = re.search(r"SLURM run ID: (\S+)", text)
    numbers = re.findall(r"SLURM job ?(?:id|ID) (\d+)", text)
    return Run(name[1] if name else "", frozenset(numbers), frozenset(re.findall(r"\bartifacts/([\w-]+)/", text)))


def _study(task: Task) -> str:
    return task.log.parts[1]  # artifacts/STUDY/logs/...


def _of_another_study(job: Job, queue: Queue, tasks: list[Task]) -> bool:
    """Whether the Snakemake that submitted a job was at work on another study than that of these tasks."""
    runs = [run for run in queue.runs if run.name == job.run]
    return bool(runs) and not any(_study(tasks[0]) in run.studies for run in runs)


def slurm_log(task: Task, queue: Queue) -> Path | None:
    """The newest log of Slurm itself about a task; it alone says why a job died before or outside of its command."""
    found = (LOGS / f"rule_{task.stage}" / "_".join(task.keys)).glob("*.log")
    return max((path for path in found if _is_about(path, task, queue)), key=_changed, default=None)


def _is_about(log: Path, task: Task, queue: Queue) -> bool:
    if re.search(rf"(?<![\w./-]){re.escape(str(task.outputs[0]))}", _text(log)):
        return True
    number = log.stem.partition("_")[0]  # an array's task: 12_3
    return any(number in run.numbers and _study(task) in run.studies for run in queue.runs)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
