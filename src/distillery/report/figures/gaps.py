"""Gaps between groups against the temperature of distillation, over all pairs of a study."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distillery.evaluation.families import labels, names, place
from distillery.report.figures.style import TEACHER, apart, legend, panels, plain
from distillery.report.results import Cell, Results
from distillery.report.table import Table


def families(results: Results) -> list[tuple[str, dict[float, list[Cell]]]]:
    """(label, cells by temperature) of every family of methods that differ in nothing else and have two of them."""
    found: dict[str, dict[float, list[Cell]]] = {}
    for cell in (c for c in results if c.runs):
        if at := place(cell):
            same, temperature = at
            found.setdefault(same, {}).setdefault(temperature, []).append(cell)
    groups = [cells for cells in found.values() if len(cells) > 1]
    (called,) = labels([[names(cells[min(cells)][0]) for cells in groups]])
    return list(zip(called, groups, strict=True))


def draw(results: Results, table: Table) -> Figure | None:
    """A panel for every measure: students by temperature, dashed those without a teacher, grey the teachers."""
    groups = families(results)
    if not groups:
        return None
    measures, looks = results.task.measures, apart(name for name, _ in groups)
    widest = max(len(f"{name}: students") for name, _ in groups)
    figure, axes = panels(table, [m.title for m in measures], widest=widest)
    teachers = {name: t for cell in results for name, t in cell.facts.get("teachers", {}).items()}
    alone = [c for c in results if c.runs and c.facts["cost"]["teacher_outputs"] == "none"]
    for measure, axis in zip(measures, axes, strict=True):
        for name, by_temperature in groups:
            temperatures = sorted(by_temperature)
            values = [_values(by_temperature[t], measure.name) for t in temperatures]
            means, spreads = [np.mean(v) for v in values], [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values]
            axis.errorbar(temperatures, means, yerr=spreads, label=plain(f"{name}: students"), **looks[name])
        if lone := _values(alone, measure.name):
            axis.axhline(float(np.mean(lone)), color="black", linestyle="--", label="student alone")
        axis.axhline(
            float(np.mean([t["last"][measure.name] for t in teachers.values()])), color=TEACHER, label="teachers"
        )
        axis.set_xlabel("temperature")
    legend(figure, axes, table)
    return figure


def _values(cells: list[Cell], measure: str) -> list[Any]:
    return [run["last"][measure] for cell in cells for run in cell.runs.values()]
