"""The look that all figures share, panels per pair, and saving without anything that changes between runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillery.artifacts import atomic_path
from distillery.reporting.table import Table

STYLE: Any = {
    "svg.hashsalt": "distillery",  # identifiers inside the file depend on its content alone
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
# Okabe and Ito's colours, told apart by colour-blind readers too; after them the same again, dashed and dotted.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
TEACHER = "#888888"


def look(table: Table) -> dict[str, dict[str, Any]]:
    """Colour, dash and label of every method, the same in all figures of a study."""
    rows = [row for row in table.rows if row.kind != "teacher"]
    return {
        row.name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
            "label": row.label.replace("$", r"\$"),
        }
        for i, row in enumerate(rows)
    }


def panels(titles: list[str], width: float = 4.2, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """A grid of panels with titles, three in a row at most, and room for a legend on the right."""
    columns = min(3, len(titles))
    rows = math.ceil(len(titles) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(columns * width + 1.6, rows * height))
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title)
    for unused in axes[len(titles) :]:
        unused.set_visible(False)
    return figure, list(axes[: len(titles)])


def legend(figure: Figure, axes: list[Axes]) -> None:
    """One legend for all panels: every label once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    with matplotlib.rc_context(STYLE):
        figure.legend(handles.values(), handles.keys(), loc="outside right upper")


def title_of(table: Table, pair: str) -> str:
    column = next(c for c in table.columns if c.pair == pair)
    return f"{column.teacher} → {column.student}"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG without a date."""
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
