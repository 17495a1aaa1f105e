"""All measured runs of a study, cell by cell, and for every missing run the reason. Other files are ignored."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distillery.evaluation.statistics import Summary, summarise
from distillery.pipeline.layout import Layout, tracked
from distillery.records import io as artifacts
from distillery.records.io import DistilleryError
from distillery.study.model import Study, expand_seeds, read_params

JOB = ("seed", "params_sha256", "code_sha256", "inputs", "environment")  # of a metrics file's record


@dataclass(eq=False)  # compared and hashed by identity
class Cell:
    """One entry of a table: the runs of one pair and method.

    Attributes:
        expected: the seeds that the study declares.
        runs: what `evaluate` measured, by seed, in the order of `expected`.
        missing: for each seed without a result, the reason.
        facts: what the cell's runs share (cost, recipe, objective, teachers, ...); empty without a run.
        jobs: the record of every metrics file that the runs come from, by path.
    """

    pair: str
    method: str
    expected: tuple[int, ...]
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def top1(self, convention: str) -> dict[int, float]:
        """Test accuracy in percent by seed: of the last epoch ("last"), or of the best one on the test set ("best")."""
        found = {seed: accuracy(run, convention) for seed, run in self.runs.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def summary(self, convention: str) -> Summary:
        return summarise(list(self.top1(convention).values()))


def label_of_method(study: Study, method: str) -> str:
    """A method's label on one line, without control characters: they would end a table's row or spoil a figure."""
    text = " ".join((study.methods[method].label or method).split())
    return "".join(c for c in text if unicodedata.category(c) != "Cc")


def accuracy(measured: dict[str, Any], convention: str) -> float | None:
    """Top-1 of a run or teacher under a convention; None if it has none (a fetched teacher has no best epoch)."""
    return measured.get("last" if convention == "last" else "test_best", {}).get("top1")


@dataclass(eq=False)
class Results:
    """A study and its cells, in the order of params.yaml."""

    study: Study
    cells: dict[tuple[str, str], Cell]

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells.values())

    def column(self, pair: str) -> list[Cell]:
        return [cell for cell in self if cell.pair == pair]

    def first(self, pair: str | None = None) -> dict[str, Any]:
        """The facts of the first cell that has any, of one pair or of the study; {} if none has."""
        return next((c.facts for c in self if c.facts and pair in (None, c.pair)), {})

    @property
    def complete(self) -> bool:
        return not any(cell.missing for cell in self)


def metrics_files(study: Study) -> list[Path]:
    """The metrics files of the study that exist."""
    layout = Layout(study.study)
    return [path for cell in study.cells() if (path := layout.metrics(*cell)).exists()]


def load(study: Study, params: Path) -> Results:
    """Read every metrics file of the study. Files of cells or seeds that it does not declare are not looked at."""
    layout, raw = Layout(study.study), read_params(params)
    cells = {(p, m): Cell(p, m, ()) for p in study.pairs for m in study.methods}
    for pair, method, block in study.cells():
        cell, seeds = cells[pair, method], expand_seeds(block)
        cell.expected += seeds
        path = layout.metrics(pair, method, block)
        record, problem = _read(path, raw, pair, method, block)
        found = {run["seed"]: _compact(run) for run in record.pop("runs", [])}
        for seed in seeds:
            if seed in found:
                cell.runs[seed] = found[seed]
            else:
                cell.missing[seed] = problem or f"{path} holds no seed {seed}"
        if found:
            cell.facts = cell.facts or record
            cell.jobs[str(path)] = {key: record.get(key) for key in JOB}
    return Results(study, cells)


def _compact(run: dict[str, Any]) -> dict[str, Any]:
    """Keep of a run's curves what is drawn, as arrays: a study of thousands of runs fits into memory."""
    curves = {name: run["curves"].get(name, []) for name in ("epoch", "test_top1")}
    run["curves"] = {name: np.array(values, dtype=float) for name, values in curves.items()}  # None becomes nan
    run["per_class"] = np.array(run["per_class"], dtype=float)
    return run


def _read(path: Path, raw: dict[str, Any], pair: str, method: str, block: str) -> tuple[dict[str, Any], str]:
    """Return a metrics file and "", or an empty record and why it does not count."""
    if not path.exists():
        return {}, "no result yet"
    try:
        record = artifacts.read_json(path)
    except DistilleryError as error:
        return {}, str(error)
    now = json.loads(tracked("distill", raw, pair=pair, method=method, seed=block))
    if record.get("trained_params_sha256") != artifacts.sha256_json(now):
        return {}, "trained with other parameters than params.yaml has now; run the study again"
    return record, ""
