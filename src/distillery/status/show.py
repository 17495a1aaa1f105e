"""`distillery status`: what is done, running, waiting, failed or stale, and how long the rest will take."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.table import Table

from distillery.pipeline.job import STAGES, Plan
from distillery.status.remaining import remaining, sentence, words
from distillery.status.states import DONE, FAILED, RUNNING, STALE, STATES, STOPPED, WAITING, Standing, Status, look
from distillery.study.model import Study

_MOST = 10  # lines of each list, unless all are asked for
_WIDEST = 600  # characters of a log's last line: a sentence ends with what to do
_STYLE = {"done": "green", "running": "cyan", "failed": "bold red", "stopped": "yellow", "stale": "yellow"}


def show(study: Study, plan: Plan, everything: bool = False, console: Console | None = None) -> None:
    """Print where the study stands. `everything`: all jobs that run, failed or were stopped, not only the first ten."""
    console = console or Console()
    standing, now = look(plan), time.time()
    done, total = len(standing.of(DONE)), len(standing.statuses)
    console.print(f"[bold]{study.study}[/]: {done} of {total} jobs done")
    # On a narrow terminal columns without a job are left out, then the counts of runs, before any word is cut.
    tables = [_table(standing, whole, runs) for whole, runs in ((True, True), (False, True), (False, False))]
    console.print(next((t for t in tables if _width(console, t) <= console.width), tables[-1]))
    most = None if everything else _MOST
    _list(console, "running", [_running(s, now) for s in standing.of(RUNNING)], most)
    for state in (FAILED, STOPPED):
        _list(console, state, [_ended(s) for s in standing.of(state)], most)
    _list(console, "stale", _stale(standing.of(STALE)), most)
    for line in _slurm(standing):
        _line(console, line)
    _line(console, f"remaining: {sentence(remaining(standing, study, now))}")


def failures(plan: Plan, began: float) -> list[str]:
    """The jobs of a study that failed or were stopped, one line each: the last line of its log, and where that is.

    Those of before `began` (seconds since 1970) are counted alone: not this run of the engine tried them.
    """
    standing, lines = look(plan), list[str]()
    for state in (FAILED, STOPPED):
        if found := [_ended(status) for status in standing.of(state) if status.since >= began]:
            lines += [f"{len(found)} job(s) {state}:", *_first(found, _MOST)]
    if earlier := sum(status.since < began for status in standing.of(FAILED, STOPPED)):
        lines.append(f"{earlier} job(s) of earlier runs failed or were stopped: `distillery status`")
    return lines


def _width(console: Console, table: Table) -> int:
    """The columns of a terminal that a table takes without cutting anything."""
    return console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum


def _table(standing: Standing, whole: bool = True, runs: bool = True) -> Table:
    """How many jobs of each stage are in each state. `whole`: also the usual states that none is in."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    shown.add_column("stage")
    rare = {WAITING: standing.queue.answered, STOPPED: standing.of(STOPPED)}
    states = [state for state in STATES if rare.get(state, whole or standing.of(state))]
    for state in states:
        shown.add_column(state, justify="right", style=_STYLE.get(state))
    shown.add_column("total", justify="right")
    shown.add_column("")
    for stage in STAGES:
        counts = standing.counts(stage)
        made = sum(len(s.job.seeds) for s in standing.statuses if s.job.stage == stage)
        note = f"{made} runs" if runs and made > counts.total() else ""
        shown.add_row(stage, *(str(counts[s] or "") for s in states), str(counts.total()), note)
    return shown


def _list(console: Console, title: str, lines: list[str], most: int | None) -> None:
    if not lines:
        return
    console.print(f"{title}:", style=_STYLE[title])
    for line in _first(lines, most):
        _line(console, line)


def _first(lines: list[str], most: int | None) -> list[str]:
    """The first lines of a list, and how many there are besides; all of them without `most`."""
    more = [] if most is None or len(lines) <= most else [f"and {len(lines) - most} more: `distillery status --all`"]
    return [f"  {line}" for line in (*lines[:most], *more)]


def _line(console: Console, text: str) -> None:
    """One line, whatever its length: a terminal wraps it, a pipe gets it whole."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _running(status: Status, now: float) -> str:
    parts = [status.job.name + ":", status.progress or "starting"]
    if status.since:
        parts.append(f"for {words(max(0.0, now - status.since))} (since {_clock(status.since, now)})")
    if status.host:
        parts.append(f"on {status.host}")
    return " ".join(parts)


def _clock(moment: float, now: float) -> str:
    """The hour today, else with the day."""
    same = time.localtime(moment)[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if same else "%d %b %H:%M", time.localtime(moment))


def _ended(status: Status) -> str:
    said = status.why if len(status.why) <= _WIDEST else f"{status.why[: _WIDEST - 3]}..."
    return f"{status.job.name}: {said}  ({status.job.log})"


def _stale(found: list[Status]) -> list[str]:
    """One line for each stage and reason: a change of one parameter may concern hundreds of jobs."""
    counts = Counter((s.job.stage, s.why) for s in found)
    return [f"{stage}: {count}, {why}" for (stage, why), count in counts.items()]


def _slurm(standing: Standing) -> list[str]:
    lines = [f"Slurm is not asked: {standing.queue.silent}"] if standing.queue.silent else []
    if waiting := Counter(s.why for s in standing.of(WAITING)):
        reasons = ", ".join(f"{count} {reason}" for reason, count in waiting.most_common())
        lines.append(f"waiting for: {reasons}")
    if standing.queue.unnamed:
        lines.append(f"in Slurm's queue besides: {standing.queue.unnamed} jobs of which it is not known whose they are")
    return lines
