"""Learning curves with bands, and the numbers under them for `dvc plots`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distillery.reporting.figures.style import legend, look, panels, title_of
from distillery.reporting.results import Cell, Results
from distillery.reporting.table import Table

COLUMNS = ("pair", "method", "epoch", "mean", "sd", "n")
POINTS = 80  # of a curve; more cannot be told apart and make heavy files


def curve(cell: Cell, name: str = "test_top1") -> tuple[np.ndarray, np.ndarray]:
    """Epochs at which every run of a cell was tested, and the (runs, epochs) values there."""
    lines = [
        {e: v for e, v in zip(run["curves"]["epoch"], run["curves"].get(name, []), strict=False) if v is not None}
        for run in cell.runs.values()
    ]
    common = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
    if len(common) > POINTS:
        kept = np.linspace(0, len(common) - 1, POINTS).round().astype(int)
        common = [common[i] for i in kept]
    return np.array(common), np.array([[line[e] for e in common] for line in lines])


def points(results: Results) -> list[dict[str, Any]]:
    """The curves as rows: pair, method, epoch, mean, sd, n."""
    rows = []
    for cell in results:
        epochs, values = curve(cell)
        for i, epoch in enumerate(epochs.tolist()):
            column = values[:, i]
            sd = float(column.std(ddof=1)) if len(column) > 1 else None
            facts = {"epoch": epoch, "mean": float(column.mean()), "sd": sd, "n": len(column)}
            rows.append({"pair": cell.pair, "method": cell.method} | facts)
    return rows


def draw(results: Results, table: Table) -> Figure | None:
    styles, pairs = look(table), list(results.study.pairs)
    figure, axes = panels([title_of(table, pair) for pair in pairs])
    empty = True
    for pair, axis in zip(pairs, axes, strict=True):
        for cell in results.column(pair):
            epochs, values = curve(cell)
            if not len(epochs):
                continue
            empty, mean, style = False, values.mean(axis=0), styles[cell.method]
            axis.plot(epochs, mean, linewidth=1.2, **style)
            if len(values) > 1:
                sd = values.std(axis=0, ddof=1)
                axis.fill_between(epochs, mean - sd, mean + sd, color=style["color"], alpha=0.15, linewidth=0)
        axis.set_xlabel("epoch")
        axis.set_ylabel("test top-1, %")
    legend(figure, axes)
    return None if empty else figure
