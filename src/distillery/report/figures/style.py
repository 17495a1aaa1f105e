"""The look that all figures share, panels per pair, and saving without anything that changes between runs."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillery.records.io import atomic_path
from distillery.report.table import Table

STYLE: Any = {
    "svg.hashsalt": "distillery",  # identifiers inside the file depend on its content alone
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
# Okabe and Ito's colours, told apart by colour-blind readers too; after them the same again, dashed and dotted.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
TEACHER = "#888888"
COLUMNS = 3  # panels in a row, at most


def look(table: Table) -> dict[str, dict[str, Any]]:
    """Colour, dash and label of every method, the same in all figures of a study."""
    rows = [row for row in table.rows if row.kind != "teacher"]
    return {
        row.name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
            "label": _plain(row.label),
        }
        for i, row in enumerate(rows)
    }


def _plain(label: str) -> str:
    """A label as matplotlib shows it unchanged: no formula between dollars, and not hidden for a leading underscore."""
    return ("\u200b" if label.startswith("_") else "") + label.replace("$", r"\$")


def panels(
    table: Table,
    titles: list[str],
    width: float = 3.5,
    height: float = 2.3,
    left: float = 0.65,
    gap: float = 0.75,
    right: float = 0.25,
) -> tuple[Figure, list[Axes]]:
    """A grid of panels of the given size in inches, with room for a legend on the right.

    Placed by hand: matplotlib's own layout measures every label, which takes longer than drawing a large study.
    """
    columns = min(COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    labels = [row.label for row in table.rows]
    across = left + columns * width + (columns - 1) * gap + right + legend_width(labels)
    below, above = 0.55, 0.35
    down = max(rows * (below + height + above), 0.2 * len(labels) + 0.4)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(across, down))
        axes = []
        for i, title in enumerate(titles):
            x = left + i % columns * (width + gap)
            y = down - (i // columns + 1) * (below + height + above) + below
            axis = figure.add_axes((x / across, y / down, width / across, height / down))
            axis.set_title(title, y=1.0)
            axis.xaxis.set_label_coords(0.5, -0.38 / height)
            axis.yaxis.set_label_coords(-0.45 / width, 0.5)
            axes.append(axis)
    return figure, axes


def legend_width(labels: list[str]) -> float:
    """Inches that a legend with these labels takes."""
    return 0.7 + 0.075 * max(map(len, labels))


def legend(figure: Figure, axes: list[Axes], table: Table) -> None:
    """One legend for all panels: every label once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    across = figure.get_figwidth()
    x = 1 - legend_width([row.label for row in table.rows]) / across
    with matplotlib.rc_context(STYLE):
        figure.legend(handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(x, 1.0))


def title_of(table: Table, pair: str) -> str:
    column = next(c for c in table.columns if c.pair == pair)
    return f"{column.teacher} → {column.student}"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG without a date. Its texts stay text, so that no font needs to have all characters here."""
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(temporary, format="svg", metadata={"Date": None})
