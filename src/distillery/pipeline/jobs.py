"""The jobs of a study as both engines see them: one for each line that `snakemake -n` or `dvc repro` would run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.pipeline.layout import Layout
from distillery.study.model import Study, expand_seeds

# The wildcards of each stage, in the order in which Snakemake meets them in the paths of the stage's outputs.
WILDCARDS: dict[str, tuple[str, ...]] = {
    "data": (),
    "teacher": ("teacher",),
    "cache": ("teacher",),
    "pair": ("pair",),
    "distill": ("pair", "method", "seed"),
    "evaluate": ("pair", "method", "seed"),
    "tables": (),
}


@dataclass(frozen=True)
class Task:
    """One job.

    Attributes:
        keys: the values of its wildcards.
        outputs: what it makes; the first is the one that it locks meanwhile.
        record: the JSON file that says what it was made from.
        after: names of the tasks whose outputs it reads.
        checkpoints: where it would continue after a kill.
        seeds: its runs, in this order; empty if it has to do with no student.
    """

    stage: str
    keys: tuple[str, ...]
    outputs: tuple[Path, ...]
    record: Path
    log: Path
    provenance: Path
    after: tuple[str, ...] = ()
    checkpoints: tuple[Path, ...] = ()
    seeds: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return " ".join((self.stage, *self.keys))

    @property
    def wildcards(self) -> dict[str, str]:
        return dict(zip(WILDCARDS[self.stage], self.keys, strict=True))


def list_tasks(study: Study) -> list[Task]:
    """All jobs of the study, each after those that it needs; of the teachers only those that some pair uses."""
    at, found = Layout(study.study), []

    def add(stage: str, keys: tuple[str, ...], *outputs: Path, record: Path | None = None, **more: Any) -> str:
        log, provenance = at.log(stage, *keys), at.provenance(outputs[0])
        found.append(Task(stage, keys, outputs, record or outputs[-1], log, provenance, **more))
        return found[-1].name

    data = add("data", (), at.data, at.arrays, record=at.data)
    for t in dict.fromkeys(t for pair in study.pairs.values() for t in pair.teachers):
        weights, checkpoint = at.teacher(t), at.checkpoint("teachers", t)
        teacher = add("teacher", (t,), weights, at.teacher_record(t), after=(data,), checkpoints=(checkpoint,))
        add("cache", (t,), at.table(t), at.table_record(t), after=(data, teacher))
    for p, pair in study.pairs.items():
        add("pair", (p,), at.pair(p), after=tuple(f"{s} {t}" for t in pair.teachers for s in ("teacher", "cache")))
    measured = []
    for cell in study.cells():
        (p, m, block), read = cell, (data, f"pair {cell[0]}")
        seeds = expand_seeds(block)
        saved = tuple(at.checkpoint(p, m, str(seed)) for seed in seeds)
        outputs = at.students(*cell), at.runs(*cell)
        trained = add("distill", cell, *outputs, after=read, checkpoints=saved, seeds=seeds)
        measured.append(add("evaluate", cell, at.metrics(*cell), after=(*read, trained), seeds=seeds))
    files, pairs = at.table_files(), (f"pair {p}" for p in study.pairs)
    last = files.pop("table")
    add("tables", (), last, *files.values(), at.figures, record=last, after=(*measured, *pairs))
    return sorted(found, key=lambda task: list(WILDCARDS).index(task.stage))
