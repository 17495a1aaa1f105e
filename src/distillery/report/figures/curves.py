"""Learning curves with bands, and the numbers under them for `dvc plots`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distillery.report.figures.style import legend, look, panels, title_of
from distillery.report.results import Cell, Results
from distillery.report.table import Table

COLUMNS = ("pair", "method", "epoch", "mean", "sd", "n")
POINTS = 80  # of a curve; more cannot be told apart and make heavy files


def curve(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Epochs at which every run of a cell was tested, and the (runs, epochs) values there."""
    if not cell.runs:
        return np.array([]), np.empty((0, 0))
    epochs, values = (
        np.array([run["curves"][n] for run in cell.runs.values()]) for n in ("epoch", f"test_{cell.measure.name}")
    )
    tested = np.flatnonzero(~np.isnan(values).any(axis=0))
    if len(tested) > POINTS:
        tested = tested[np.linspace(0, len(tested) - 1, POINTS).round().astype(int)]
    return epochs[0, tested].astype(int), values[:, tested]


def points(results: Results) -> list[dict[str, Any]]:
    """The curves as rows: pair, method, epoch, mean, sd, n."""
    rows = []
    for cell in results:
        epochs, values = curve(cell)
        if not len(epochs):
            continue
        n = len(values)
        means = values.mean(axis=0).tolist()
        spreads = values.std(axis=0, ddof=1).tolist() if n > 1 else [None] * len(epochs)
        for line in zip(epochs.tolist(), means, spreads, strict=True):
            rows.append(dict(zip(COLUMNS, (cell.pair, cell.method, *line, n), strict=True)))
    return rows


def caption(table: Table) -> str:
    spread = ": mean over seeds; band of one standard deviation, if few" if table.repeated else ""
    return f"Test scores while training{spread}."


def draw(results: Results, table: Table) -> Figure | None:
    """Nothing of a study whose runs were tested once, after the last epoch: points are no curves."""
    styles, pairs = look(table), list(results.study.pairs)
    figure, axes = panels(table, [title_of(table, pair) for pair in pairs])
    empty = True
    for pair, axis in zip(pairs, axes, strict=True):
        for cell in results.column(pair):
            epochs, values = curve(cell)
            if not len(epochs):
                continue
            once, mean, style = len(epochs) < 2, values.mean(axis=0), styles[cell.method]
            empty = empty and once
            axis.plot(epochs, mean, linewidth=1.2, marker="." if once else None, **style)
            if len(values) > 1 and style["zorder"] > 1:
                sd = values.std(axis=0, ddof=1)
                axis.fill_between(epochs, mean - sd, mean + sd, color=style["color"], alpha=0.15, linewidth=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("epoch")
        axis.set_ylabel(results.task.main.axis)
    legend(figure, axes, table)
    return None if empty else figure
