"""The main measure against the cost of training."""

from __future__ import annotations

from matplotlib.figure import Figure

from distillery.report.figures.style import bars, legend, look, panels, title_of
from distillery.report.results import Cell, Results
from distillery.report.table import Table

BACKWARD = 2  # a backward pass takes about two forwards


def training_macs(cell: Cell) -> float:
    """Multiply-accumulates of one training run: student forward and backward, and the teacher where it ran live."""
    cost = cell.facts["cost"]
    teachers = cell.facts["teachers"].values()
    per_teacher = sum(t["macs"] for t in teachers) / max(1, len(teachers))
    student = cost["images_seen"] * cost.get("images_each", 1) * cell.facts["macs"] * (1 + BACKWARD)
    return float(student + cost["teacher_forwards"] * per_teacher)


def caption(table: Table) -> str:
    said = f"The main measure{bars(table)} against what training cost"
    return f"{said}, in multiply-accumulates of student and live teacher."


def draw(results: Results, table: Table) -> Figure | None:
    styles, pairs = look(table), list(results.study.pairs)
    if len({training_macs(cell) for cell in results if cell.runs}) < 2:
        return None  # all runs cost the same: a vertical line tells nothing
    figure, axes = panels(table, [title_of(table, pair) for pair in pairs])
    for pair, axis in zip(pairs, axes, strict=True):
        for cell in results.column(pair):
            s = cell.summary(table.convention)
            if s.mean is not None:
                style = styles[cell.method]
                axis.errorbar(training_macs(cell) / 1e9, s.mean, yerr=s.sd, fmt="o", **style)
        axis.set_xscale("log")
        axis.set_xlabel("10⁹ multiply-accumulates of training")
        axis.set_ylabel(results.task.main.axis)
    legend(figure, axes, table)
    return figure
