"""Is an output current? The one judge, whom Snakemake, `status`, `show`, the tables and `record` all ask.

It compares each record with the plan: the job that made the outputs was told what the plan says now, what it read is
what lies there now, and what it wrote still lies there. Whether an engine made the outputs or a person by hand, here or
elsewhere, makes no difference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.pipeline.job import Job, Plan, text_of
from distillery.records.io import DistilleryError, sha256_file
from distillery.records.named import ABSENT
from distillery.records.schema import KINDS, Edited, Record, ResultRecord, read

CURRENT, MISSING, STALE = "current", "missing", "stale"
_FROM_STALE = "made from a stale"
_UNSEEN = "which engines, who look at sizes, do not see: delete it first"


@dataclass(frozen=True)
class Verdict:
    """What the judge found, and why (one clause, "" if all is well)."""

    state: str
    why: str = ""

    @property
    def current(self) -> bool:
        return self.state == CURRENT


class Judge:
    """Judges the jobs of a plan, each once.

    `thorough`: outputs are hashed. Otherwise their size must do, which finds what was cut short, not what was edited.
    """

    def __init__(self, plan: Plan, thorough: bool = False) -> None:
        self.plan, self.thorough = plan, thorough
        self._verdicts: dict[str, Verdict] = {}
        self._content: dict[Path, str] = {}  # hashes of what current jobs have written

    def verdict(self, job: Job) -> Verdict:
        if job.name not in self._verdicts:
            self._verdicts[job.name] = self._judge(job)
        return self._verdicts[job.name]

    def due(self) -> list[Job]:
        """The jobs that are not current, in the order of the plan."""
        return [job for job in self.plan if not self.verdict(job).current]

    def held(self, job: Job) -> list[Path]:
        """The files that a current job's record vouches for: its outputs, and itself."""
        return [job.record, *map(Path, read(job.record, KINDS[job.stage]).outputs)]

    def _judge(self, job: Job) -> Verdict:
        if absent := [path for path in job.outputs.values() if not path.exists()]:
            return Verdict(MISSING, f"{absent[0]} is missing")
        try:
            record = read(job.record, KINDS[job.stage])
        except DistilleryError as error:
            return Verdict(STALE, str(error))
        why = difference(record.spec, job) or self.changed_output(job, record)
        if why:
            return Verdict(STALE, why)
        for earlier in self.plan.needs(job):
            if not (found := self.verdict(earlier)).current:
                return Verdict(STALE, _upstream(earlier, found))
        return self._changed_input(job, record)

    def changed_output(self, job: Job, record: Record) -> str:
        """Say which output is not the one that its record describes; "" if all are."""
        for name, content in record.outputs.items():
            path = Path(name)
            if not path.exists() or path.stat().st_size != content.bytes:
                return f"{path} is not the file that {job.record} describes"
            if self.thorough and sha256_file(path) != content.sha256:
                return f"{path} is not the file that {job.record} describes, {_UNSEEN}"
            self._content[path] = content.sha256
        return ""

    def _changed_input(self, job: Job, record: Record) -> Verdict:
        for path in job.reads.values():
            if path not in self._content:  # a record, which holds no hash of itself
                self._content[path] = sha256_file(path)
            if record.inputs.get(str(path)) != self._content[path]:
                return Verdict(STALE, f"{path} changed")
        return Verdict(CURRENT)


def fault_of_tables(plan: Plan) -> str:
    """Say in one sentence why the written tables are not those of the study as it is now; "" if they are.

    Where no artefact lies (a clone: git holds the tables only), the tables' own record must do. The tables themselves
    are looked at by content: they are small, and somebody may have edited them.
    """
    job, thorough = plan.job("tables"), Judge(plan, thorough=True)
    then = "run the study again"
    if plan.layout.all_metrics.exists():
        judge = Judge(plan)
        why = judge.verdict(job).why
        if why.startswith(_FROM_STALE):  # what is wrong with the first of those that it was made from
            first = judge.due()[0]
            why = f"{first.name}: {judge.verdict(first).why}"
        elif why:
            then = "`distillery tables` makes it anew, without training"
        why = why or thorough.changed_output(job, read(job.record, ResultRecord))
    elif job.record.exists():
        then = "its numbers are those that were measured then"
        try:
            record = read(job.record, ResultRecord)
            if why := thorough.changed_output(job, record):
                then = "take it from git again"
            elif (why := difference(record.spec, job)) and _only_form(record.spec, job):
                then += ", and what differs is how a table is made of them"
        except Edited as error:
            why, then = str(error), "take it from git again"
        except DistilleryError:
            why = "it was made by an earlier version of Distillery"
    else:
        why = "it was not made yet"
    return f"the table below is not that of the study as it is now ({why}): {then}" if why else ""


def _upstream(job: Job, found: Verdict) -> str:
    return f"its {job.stage} is missing" if found.state == MISSING else f"{_FROM_STALE} {job.stage}"


def difference(spec: dict[str, Any], job: Job) -> str:
    """Say what a job is told now that a record's spec does not say; "" if nothing."""
    now = job.spec
    if text_of(spec) == text_of(now):
        return ""
    if str(lost := now["values"].get("files")).startswith(ABSENT):
        return f"{lost.removeprefix(ABSENT)} is missing"
    if changed := _changed(spec, job):
        keys = [_spoken(key, job) for key in changed]
        said = f"{', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''} changed"
        learnt = {*changed} - {*_flat(spec.get("values", {}))}  # by Distillery, since then, or written by the user
        return f"{said}, or not known then" if learnt else said
    if spec.get("code") != now["code"]:
        return "its code changed"
    same = {**spec, "values": now["values"]} == now
    return "the order of methods, partners or others changed" if same else "what it reads or writes changed"


def _changed(spec: dict[str, Any], job: Job) -> list[str]:
    """The keys of a record's spec whose values are others now."""
    before, after = _flat(spec.get("values", {})), _flat(job.spec["values"])
    return [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]


def _only_form(spec: dict[str, Any], job: Job) -> bool:
    """Whether tables made by a record's spec would hold the same numbers now, in another form."""
    return spec.get("reads") == job.spec["reads"] and all(key.startswith("tables.") for key in _changed(spec, job))


def _spoken(key: str, job: Job) -> str:
    """A key of a spec as params.yaml calls it."""
    first, _, rest = key.partition(".")
    match job.stage, first:
        case _, "instructions":
            return key
        case "distill" | "evaluate", "objective":
            return f"methods.{job.wildcards['method']}.{rest}"
        case "distill" | "evaluate", "student" | "teachers":
            return f"pairs.{job.wildcards['pair']}"
        case "teacher", "recipe":
            return key
        case "teacher" | "distill", "start":
            return "task.start"
        case "tables", "kept":
            return str(job.layout.kept)
        case "teacher" | "cache", _:
            return f"teachers.{job.keys[0]}.{key}" if job.stage == "teacher" else f"cache.{key}"
        case "data", _:
            return f"data.{rest or first}"
    return key


def _flat(values: Any, where: str = "") -> dict[str, str]:
    if not isinstance(values, dict):
        return {where: json.dumps(values)}
    return {k: v for key, value in values.items() for k, v in _flat(value, f"{where}.{key}".lstrip(".")).items()}
