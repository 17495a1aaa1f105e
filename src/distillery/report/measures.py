"""Every scalar that was measured, run by run and cell by cell: the columns of runs.csv and of the report's tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distillery.evaluation.statistics import Summary, summarise
from distillery.report.results import Cell, Results
from distillery.task import Column, Task

# What the facts of a run say, for every task alike.
COST: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "parameters": ("parameters of the student", lambda facts: facts["cost"]["parameters"]),
    "extra_parameters": ("parameters trained besides", lambda facts: facts["cost"]["extra_parameters"]),
    "macs": ("multiply-accumulates per image", lambda facts: facts["macs"]),
    "epochs": ("epochs", lambda facts: facts["cost"]["epochs"]),
    "images_seen": ("training images seen", lambda facts: facts["cost"]["images_seen"]),
    "teacher_forwards": ("teacher forwards while training", lambda facts: facts["cost"]["teacher_forwards"]),
    "device": ("device", lambda facts: facts["cost"]["device"]),
    "hardware": ("hardware", lambda facts: facts["cost"].get("hardware")),  # runs kept long ago do not say
}


def measured(task: Task) -> tuple[Column, ...]:
    """Columns of a run: the task's measures under every convention, then what else it measures."""
    main, unit = task.main, f", {task.main.unit}" if task.main.unit else ""
    last = [
        Column(
            f"{m.name}_last",
            f"{m.short or m.label} of the last epoch" + (f", {m.unit}" if m.unit else ""),
            f"last.{m.name}",
            m is not main,
        )
        for m in task.measures
    ]
    best = [
        Column(
            f"{main.name}_test_best",
            f"{main.short or main.label} of the best epoch on the test set{unit}",
            f"test_best.{main.name}",
        ),
        Column("epoch_test_best", "that epoch", "test_best.epoch"),
        Column(
            f"{main.name}_val_best",
            f"{main.short or main.label} of the best epoch on held-out samples{unit}",
            f"val_best.{main.name}",
        ),
    ]
    return (*last, *best, *task.columns)


def columns(task: Task) -> tuple[str, ...]:
    """The header of runs.csv."""
    return ("pair", "method", "seed", *(column.name for column in measured(task)), *COST)


def shown(task: Task) -> list[Column]:
    """What the report's table of measures shows."""
    return [column for column in measured(task) if column.shown]


def by_run(results: Results) -> list[dict[str, Any]]:
    """One dictionary per run with all measures."""
    return [
        {"pair": cell.pair, "method": cell.method, "seed": seed}
        | {column.name: column.of(run) for column in measured(results.task)}
        | {name: get(run["facts"]) for name, (_, get) in COST.items()}
        for cell in results
        for seed, run in cell.runs.items()
    ]


def of_cell(cell: Cell, column: Column) -> Summary:
    """Summarise one numeric measure over a cell's runs."""
    values = [column.of(run) for run in cell.runs.values()]
    return summarise([value for value in values if value is not None])
