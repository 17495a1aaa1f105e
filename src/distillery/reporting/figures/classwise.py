"""Class-wise change, and where distilled students and students trained alone disagree."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from distillery.evaluation.statistics import ALPHA
from distillery.reporting.classwise import against_alone, disagreement_with_alone
from distillery.reporting.figures.style import look, panels, title_of
from distillery.reporting.results import Results
from distillery.reporting.table import Table


def draw(results: Results, table: Table) -> Figure | None:
    styles = look(table)
    found = {(c.pair, c.method): change for c in results if (change := against_alone(results, c)) is not None}
    if not found:
        return None
    pairs = [pair for pair in results.study.pairs if any(p == pair for p, _ in found)]
    methods = [method for method in results.study.methods if any(m == method for _, m in found)]
    figure, axes = panels([title_of(table, pair) for pair in pairs], height=1.2 + 0.3 * len(methods))
    for pair, axis in zip(pairs, axes, strict=True):
        for line, method in enumerate(methods):
            if (pair, method) not in found:
                continue
            change, colour = found[pair, method], styles[method]["color"]
            sure = np.nan_to_num(change.p, nan=1.0) < ALPHA
            for which, face in ((~sure, "none"), (sure, colour)):
                axis.scatter(change.change[which], np.full(which.sum(), line), s=14, edgecolors=colour, facecolors=face)
        axis.axvline(0, color="#888888", linewidth=0.8)
        axis.set_yticks(range(len(methods)), [styles[m]["label"] for m in methods])
        axis.set_ylim(len(methods) - 0.5, -0.5)
        axis.set_xlabel("points beyond the overall change")
    return figure


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
    labels = look(table)
    titles = [f"{title_of(table, pair)}, {labels[cell.method]['label']}" for pair, (cell, _) in shown.items()]
    figure, axes = panels(titles, height=3.6)
    for axis, (cell, matrix) in zip(axes, shown.values(), strict=True):
        off = matrix.astype(float)
        np.fill_diagonal(off, np.nan)
        image = axis.imshow(off, cmap="magma_r", interpolation="nearest")
        axis.set_xlabel("class predicted by the student alone")
        axis.set_ylabel(f"class predicted with {labels[cell.method]['label']}")
        axis.grid(False)
        figure.colorbar(image, ax=axis, shrink=0.8, label="images")
    return figure
