"""All measured runs of a study, cell by cell, and for every missing run the reason. Other files are ignored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distillery.evaluation.statistics import Summary, summarise
from distillery.pipeline.current import MISSING, Judge
from distillery.pipeline.kept import find
from distillery.records.io import load_arrays
from distillery.records.schema import Metrics, read
from distillery.study.model import Study
from distillery.task import Measure, Task, task_of


@dataclass(eq=False)  # compared and hashed by identity
class Cell:
    """One entry of a table: the runs of one pair and method.

    Attributes:
        label: what the table calls the method.
        objective: its block as it is run here, defaults filled in.
        measure: what the table shows of it.
        expected: the seeds that the study declares.
        runs: what `evaluate` measured, by seed, in the order of `expected`; under "facts" what its job says of all its
            runs: another may have had another machine, and another training of the teacher.
        missing: for each seed without a result, the reason.
        kept: the seeds whose runs are kept in git, without weights (see `pipeline.kept`).
        facts: what the first job says of its runs (cost, recipe, objective, teachers, ...); empty without a run.
        jobs: hashes, inputs and environment of every metrics file that the runs come from, by path.
    """

    pair: str
    method: str
    label: str
    measure: Measure
    expected: tuple[int, ...]
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)
    kept: tuple[int, ...] = ()
    objective: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def scores(self, convention: str) -> dict[int, float]:
        """The measure by seed: of the last epoch ("last"), the best on the test set ("best") or on "validation"."""
        found = {seed: score(run, convention, self.measure) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def summary(self, convention: str) -> Summary:
        return summarise(list(self.scores(convention).values()))


# By convention, what records call the scores of the epoch that it chooses.
CHOSEN = {"last": "last", "best": "test_best", "validation": "val_best"}


def score(measured: dict[str, Any], convention: str, measure: Measure) -> float | None:
    """A measure of a run or teacher under a convention; None if it has none (a fetched teacher has no best epoch)."""
    found: float | None = (measured.get(CHOSEN[convention]) or {}).get(measure.name)
    return found


# What a sample of a source is called, where it is no image.
NO_IMAGES = dict.fromkeys(("adult", "gaussian", "multilabel"), "row") | dict.fromkeys(
    ("frames", "moving_digits"), "clip"
)


@dataclass(eq=False)
class Results:
    """A study and its cells, in the order of params.yaml."""

    study: Study
    task: Task
    cells: dict[tuple[str, str], Cell]

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells.values())

    def column(self, pair: str) -> list[Cell]:
        return [cell for cell in self if cell.pair == pair]

    def first(self, pair: str | None = None) -> dict[str, Any]:
        """The facts of the first cell that has any, of one pair or of the study; {} if none has."""
        return next((c.facts for c in self if c.facts and pair in (None, c.pair)), {})

    @property
    def sample(self) -> str:
        """What one sample is called."""
        return NO_IMAGES.get(self.study.data.source, "image")

    @property
    def complete(self) -> bool:
        return not any(cell.missing for cell in self)


def load(study: Study, judge: Judge) -> Results:
    """Read the metrics of every cell that the judge finds current, or that are kept; the others are missing, with why.

    Files of cells or seeds that the study does not declare are not looked at.
    """
    task = task_of(study.task)
    cells = {(p, m): Cell(p, m, study.label(m), task.main, ()) for p in study.pairs for m in study.methods}
    for pair, method, block in study.cells():
        cell, job = cells[pair, method], judge.plan.job("evaluate", pair=pair, method=method, seed=block)
        cell.expected += job.seeds
        cell.objective = dict(job.values["objective"])
        verdict, found = judge.verdict(job), [(job.record, job.outputs["predictions"], job.seeds)]
        missing = {seed: f"{job.record} holds no seed {seed}" for seed in job.seeds}
        if not verdict.current:
            found = find(judge.plan, job)
            cell.kept += tuple(sorted(seed for *_, seeds in found for seed in seeds))
            why = "no result yet" if verdict.state == MISSING else f"out of date ({verdict.why}): run the study again"
            missing = dict.fromkeys(job.seeds, why)
        for record, arrays, seeds in found:
            facts, runs = _read(record, arrays, task.main)
            cell.runs |= {seed: runs[seed] | {"facts": facts} for seed in seeds if seed in runs}
            cell.facts = cell.facts or facts
            spec = facts["spec"]
            hashes = {"code": spec["code"], "spec": facts["spec_sha256"]}
            cell.jobs[str(record)] = hashes | {
                "seeds": spec["keys"]["seed"],
                "inputs": facts["inputs"],
                "environment": facts["environment"],
            }
        cell.missing |= {seed: why for seed, why in missing.items() if seed not in cell.runs}
    for cell in cells.values():  # runs that are kept may come from blocks in another order
        cell.runs = {seed: cell.runs[seed] for seed in cell.expected if seed in cell.runs}
    return Results(study, task, cells)


def _read(record: Path, bulk: Path, measure: Measure) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Return what a job measured: the facts that its runs share, and the runs by seed, their arrays among them."""
    facts = read(record, Metrics).model_dump()
    arrays = load_arrays(bulk)
    facts |= {name: _signed(values) for name, values in arrays.items() if "." not in name}
    for name, teacher in facts["teachers"].items():
        teacher |= _arrays(arrays, f"teacher.{name}.", measure)
    runs = {run["seed"]: run | _arrays(arrays, f"run.{run['seed']}.", measure) for run in facts.pop("runs")}
    return facts, runs


def _arrays(arrays: dict[str, Any], of: str, measure: Measure) -> dict[str, Any]:
    """The arrays of one run or teacher; of its curves what is drawn, so that thousands of runs fit into memory."""
    nothing = np.zeros(0)  # a fetched teacher has no curves
    curves = {key: arrays.get(f"{of}curves.{key}", nothing) for key in ("epoch", f"test_{measure.name}")}
    own = {name.removeprefix(of): values for name, values in arrays.items() if name.startswith(of)}
    return {n: _signed(v) for n, v in own.items() if not n.startswith("curves.")} | {"curves": curves}


def _signed(values: np.ndarray) -> np.ndarray:
    """Stored unsigned to be small; whoever counts with them wants signed ones, here of the least size that is safe."""
    return values.astype(np.promote_types(values.dtype, np.int32)) if values.dtype.kind == "u" else values
