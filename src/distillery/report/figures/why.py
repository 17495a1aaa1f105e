"""Why distillation helps: students of several teachers against the size of the sample and what the teachers are."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distillery.report.figures.style import COLOURS, legend, panels
from distillery.report.results import Cell, Results
from distillery.report.table import Table

TITLES = (
    "students by sample size",
    "variance of the risk",
    "students by the teacher's accuracy",
    "students by the teacher's distance to p*",
)


def draw(results: Results, table: Table) -> Figure | None:
    """Excess log-loss and variance of the risk by sample size; of the largest, excess by what the teacher is."""
    groups: dict[str, dict[int, Cell]] = {}
    for cell in (c for c in results if c.runs):
        alone = cell.facts["cost"]["teacher_outputs"] == "none"
        name = "labels" if alone else "teacher " + " + ".join(cell.facts["teachers"])
        groups.setdefault(name, {})[cell.facts["recipe"]["batch_size"]] = cell
    if len(groups) < 2:
        return None
    figure, (losses, variances, accurate, near) = panels(table, list(TITLES))
    for (name, cells), colour in zip(groups.items(), (*COLOURS, *COLOURS), strict=False):
        sizes = sorted(cells)
        look: dict[str, Any] = {"color": colour, "marker": "o", "label": name}
        values = [[run["last"]["excess"] for run in cells[n].runs.values()] for n in sizes]
        losses.plot(sizes, [np.mean(v) for v in values], **look)
        variances.plot(sizes, [_share(cells[n]) for n in sizes], **look)
        if name != "labels":
            teacher = next(iter(cells[sizes[-1]].facts["teachers"].values()))["last"]
            for axis, measure in ((accurate, "top1"), (near, "distance")):
                axis.plot(teacher[measure], np.mean(values[-1]), **look)
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


def _share(cell: Cell) -> float:
    """Variance over rows of the loss with what was learnt from, as a share of that with labels; mean over runs."""
    shares = []
    for run in cell.runs.values():
        labels = run["risk"]["labels"]["variance"]
        alone = cell.facts["cost"]["teacher_outputs"] == "none"
        shares.append(1.0 if alone else next(iter(run["fidelity"].values()))["risk_variance"] / labels)
    return float(np.mean(shares))
