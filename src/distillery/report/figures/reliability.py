"""Reliability diagrams."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distillery.report.figures.style import TEACHER, legend, look, panels, title_of
from distillery.report.results import Results
from distillery.report.table import Table

FEWEST = 10  # images; a bin with fewer says nothing


def pooled(measured: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and accuracy (percent) per bin over several runs, bins with too few images left out."""
    images, confidence, accuracy = (
        np.array([[v or 0 for v in m["reliability"][name]] for m in measured], float)
        for name in ("images", "confidence", "accuracy")
    )
    total = images.sum(axis=0)
    kept = total >= FEWEST
    x, y = ((values * images).sum(axis=0)[kept] / total[kept] for values in (confidence, accuracy))
    return x, y


def draw(results: Results, table: Table) -> Figure | None:
    styles, pairs = look(table), list(results.study.pairs)
    figure, axes = panels(table, [title_of(table, pair) for pair in pairs], width=2.6, height=2.6)
    empty = True
    for pair, axis in zip(pairs, axes, strict=True):
        axis.plot([0, 100], [0, 100], color="#cccccc", linewidth=0.8)
        if teachers := list(results.first(pair).get("teachers", {}).values()):
            axis.plot(*pooled(teachers), color=TEACHER, marker=".", label="teacher")
        for cell in results.column(pair):
            if cell.runs:
                empty = False
                axis.plot(*pooled(list(cell.runs.values())), marker=".", linewidth=1.2, **styles[cell.method])
        axis.set_xlabel("confidence, %")
        axis.set_ylabel("accuracy, %")
    legend(figure, axes, table)
    return None if empty else figure
