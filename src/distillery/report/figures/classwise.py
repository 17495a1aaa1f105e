"""Class-wise change, and where distilled students and students trained alone disagree."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillery.evaluation.class_change import ClassChange
from distillery.evaluation.statistics import ALPHA
from distillery.report.classwise import against_alone, disagreement_with_alone
from distillery.report.figures.style import COLOURS, COLUMNS, panels, plain, title_of
from distillery.report.results import Results
from distillery.report.table import Table

FEW = 20  # classes that can be told apart in one strip


def draw(results: Results, table: Table) -> Figure | None:
    found = {(c.pair, c.method): change for c in results if (change := against_alone(results, c)) is not None}
    if not found:
        return None
    pairs = [pair for pair in results.study.pairs if any(p == pair for p, _ in found)]
    methods = [method for method in results.study.methods if any(m == method for _, m in found)]
    labels = [plain(table.label(method)) for method in methods]
    left = 0.3 + 0.075 * max(map(len, labels))
    figure, axes = panels(
        table,
        [title_of(table, pair) for pair in pairs],
        height=0.2 * len(methods) + 0.2,
        left=left,
        gap=0.3,
        keyed=False,
    )
    for i, (pair, axis) in enumerate(zip(pairs, axes, strict=True)):
        for line, method in enumerate(methods):
            if (pair, method) in found:
                _strip(axis, line, found[pair, method], COLOURS[0])
        axis.axvline(0, color="#888888", linewidth=0.8)
        axis.set_yticks(range(len(methods)), labels if i % COLUMNS == 0 else [])
        axis.set_ylim(len(methods) - 0.5, -0.5)
        axis.set_xlabel("points beyond the overall change")
    return figure


def _strip(axis: Axes, line: int, change: ClassChange, colour: str) -> None:
    """One method: a circle for each class; of many classes, the range of all and a dot for each significant one."""
    sure = np.nan_to_num(change.p, nan=1.0) < ALPHA
    if len(change.change) > FEW:
        ends = np.nanmin(change.change), np.nanmax(change.change)
        axis.plot(ends, (line, line), color=colour, linewidth=1)
    else:
        others = change.change[~sure]
        axis.plot(others, np.full(len(others), line), "o", markersize=4, color=colour, fillstyle="none")
    axis.plot(change.change[sure], np.full(sure.sum(), line), "o", markersize=4, color=colour)


def draw_disagreement(results: Results, table: Table) -> Figure | None:
    """One matrix per pair: for the baseline, or the first method that has a teacher."""
    names = [table.baseline, *results.study.methods]
    shown = {}
    for pair in results.study.pairs:
        cells = (results.cells[pair, name] for name in names if name)
        matrices = ((cell, disagreement_with_alone(results, cell)) for cell in cells)
        first = next(((cell, matrix) for cell, matrix in matrices if matrix is not None), None)
        if first:
            shown[pair] = first
    if not shown:
        return None
    titles = [f"{title_of(table, pair)}, {plain(table.label(cell.method))}" for pair, (cell, _) in shown.items()]
    figure, axes = panels(table, titles, width=3.2, height=2.6, gap=1.0, keyed=False)
    for axis, (cell, matrix) in zip(axes, shown.values(), strict=True):
        off = matrix.astype(float)
        np.fill_diagonal(off, np.nan)
        image = axis.imshow(off, cmap="magma_r", interpolation="nearest")
        axis.set_xlabel("class predicted by the student alone")
        axis.set_ylabel(f"class predicted with {plain(table.label(cell.method))}")
        axis.grid(False)
        figure.colorbar(image, ax=axis, shrink=0.8, label="images")
    return figure
