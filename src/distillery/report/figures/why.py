"""Why distillation helps: students of several teachers against the size of the sample and what the teachers are."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillery.evaluation.families import labels
from distillery.evaluation.samples import sample_size
from distillery.report.figures.style import MARKERS, apart, legend, panels, plain
from distillery.report.results import Cell, Results
from distillery.report.table import Table

TITLES = (
    "students by sample size",
    "variance of the risk",
    "students by the teacher's accuracy",
    "students by the teacher's distance to p*",
)


def series(results: Results) -> list[tuple[str, str, dict[int, Cell]]]:
    """(label, what taught, cells by sample size) of every teacher, student and method, so that none hides another.

    A method with two cells of one size has two series. Without a teacher pairs train the same: these count once.
    """
    found: dict[tuple[str, str, str], list[dict[int, Cell]]] = {}
    for cell in (c for c in results if c.runs):
        size = sample_size(cell.facts)
        taught = "labels" if _alone(cell) else "teacher " + " + ".join(cell.facts["teachers"])
        several = found.setdefault((taught, cell.facts["architecture"], cell.method), [])
        if _alone(cell) and any(by[size].facts["recipe"] == cell.facts["recipe"] for by in several if size in by):
            continue
        free = next((by for by in several if size not in by), None)
        if free is None:
            several.append(free := {})
        free[size] = cell
    told = [(taught, by) for (taught, *_), several in found.items() for by in several]
    (names,) = labels([[_names(taught, next(iter(by.values()))) for taught, by in told]])
    return [(label, *one) for label, one in zip(names, told, strict=True)]


def _names(taught: str, first: Cell) -> tuple[str, ...]:
    method = f"{taught}, {first.label}"
    return taught, method, f"{method}, {first.facts['architecture']}", f"{method}, {first.pair}"


def draw(results: Results, table: Table) -> Figure | None:
    """Excess log-loss and variance of the risk by sample size; of the largest, excess by what the teacher is.

    A colour for each teacher, a marker for each of its series. Of several teachers of one student each has its own
    line of variances and its own points, with its name.
    """
    shown = series(results)
    if len(shown) < 2:
        return None
    widest = max(len(label) for label, *_ in shown)
    figure, (losses, variances, accurate, near) = panels(table, list(TITLES), widest=widest)
    colours = apart(taught for _, taught, _ in shown)
    markers = {taught: cycle(_from(look["marker"])) for taught, look in colours.items()}
    for label, taught, cells in shown:
        sizes = sorted(cells)
        look: dict[str, Any] = {
            "color": colours[taught]["color"],
            "marker": next(markers[taught]),
            "label": plain(label),
        }
        values = [[run["last"]["excess"] for run in cells[n].runs.values()] for n in sizes]
        losses.plot(sizes, [np.mean(v) for v in values], **look)
        teachers = {} if taught == "labels" else cells[sizes[-1]].facts["teachers"]
        for name in teachers or [None]:
            variances.plot(sizes, shares := [_share(cells[n], name) for n in sizes], **look)
            _tell(variances, name, sizes[-1], shares[-1], len(teachers))
        for name, teacher in teachers.items():
            for axis, measure in ((accurate, "top1"), (near, "distance")):
                axis.plot(at := teacher["last"][measure], height := np.mean(values[-1]), **look)
                _tell(axis, name, at, height, len(teachers))
    for axis in (losses, variances):
        axis.set_xscale("log")
        axis.set_xlabel("rows trained on")
    for axis in (losses, accurate, near):
        axis.set_yscale("symlog", linthresh=1e-3)
        axis.set_ylim(bottom=0)
        axis.set_ylabel("excess log-loss, nats")
    variances.set_ylabel("share of that with labels")
    accurate.set_xlabel("teacher's test accuracy, %")
    near.set_xlabel("teacher's squared distance to p*")
    legend(figure, [losses], table)
    return figure


def _from(marker: str) -> str:
    return MARKERS[MARKERS.index(marker) :] + MARKERS[: MARKERS.index(marker)]


def _alone(cell: Cell) -> bool:
    return bool(cell.facts["cost"]["teacher_outputs"] == "none")


def _tell(axis: Axes, name: str | None, x: float, y: float, teachers: int) -> None:
    """Name one of several teachers at its point."""
    if name is not None and teachers > 1:
        axis.annotate(plain(name), (x, y), xytext=(4, 4), textcoords="offset points", fontsize="x-small")


def _share(cell: Cell, teacher: str | None) -> float:
    """Variance over rows of the loss with what was learnt from, as a share of that with labels; mean over runs."""
    shares = []
    for run in cell.runs.values():
        usual = run["risk"]["labels"]["variance"]
        shares.append(1.0 if teacher is None else run["fidelity"][teacher]["risk_variance"] / usual)
    return float(np.mean(shares))
