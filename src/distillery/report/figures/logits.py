"""How large the logits of teacher and students are."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distillery.report.figures.style import TEACHER, legend, look, panels, title_of
from distillery.report.results import Results
from distillery.report.table import Table


def pooled(measured: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Add up the histograms of several runs; return the left edges of the bins (one unit wide) and the density."""
    histograms = [m["logits"]["histogram"] for m in measured]
    start = min(h["from"] for h in histograms)
    counts = np.zeros(max(h["from"] + len(h["counts"]) for h in histograms) - start)
    for h in histograms:
        counts[h["from"] - start : h["from"] - start + len(h["counts"])] += h["counts"]
    return np.arange(start, start + len(counts)), counts / counts.sum()


def draw(results: Results, table: Table) -> Figure | None:
    styles, pairs = look(table), list(results.study.pairs)
    figure, axes = panels(table, [title_of(table, pair) for pair in pairs])
    empty = True
    for pair, axis in zip(pairs, axes, strict=True):
        if teachers := list(results.first(pair).get("teachers", {}).values()):
            left, density = pooled(teachers)
            axis.stairs(density, np.append(left, left[-1] + 1), fill=True, color=TEACHER, alpha=0.35, label="teacher")
        for cell in results.column(pair):
            if cell.runs:
                empty = False
                left, density = pooled(list(cell.runs.values()))
                axis.stairs(density, np.append(left, left[-1] + 1), **styles[cell.method])
        axis.set_yscale("log")
        axis.minorticks_off()
        axis.set_xlabel("logit")
        axis.set_ylabel("share of all logits")
    legend(figure, axes, table)
    return None if empty else figure
