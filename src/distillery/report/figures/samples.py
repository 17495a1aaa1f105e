"""What generators make: a row of images of each of some classes, for every method."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from distillery.report.figures.style import STYLE, title_of
from distillery.report.results import Results, label_of_method
from distillery.report.table import Table

SIDE, GAP, ABOVE = 1.9, 0.15, 0.45  # of a panel, in inches


def tiled(samples: np.ndarray, rows: int) -> np.ndarray:
    """(rows * columns, H, W, C) images as one, row by row; grey ones as colour."""
    count, height, width, channels = samples.shape
    grid = samples.reshape(rows, count // rows, height, width, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * height, count // rows * width, channels)
    return grid.repeat(3, axis=2) if channels == 1 else grid


def draw(results: Results, table: Table) -> Figure | None:
    """The first run of every method; the same noise and classes in all of them."""
    pairs, methods = list(results.study.pairs), [row.name for row in table.rows if row.kind != "teacher"]
    rows = min(10, len(results.first().get("data", {}).get("class_names", [])))
    across, down = len(methods) * (SIDE + GAP) + GAP, len(pairs) * (SIDE + ABOVE)
    with matplotlib.rc_context(STYLE):
        figure, empty = Figure(figsize=(across, down)), True
        for i, pair in enumerate(pairs):
            for j, method in enumerate(methods):
                runs = results.cells[pair, method].runs
                if not runs or not rows:
                    continue
                empty = False
                place = (GAP + j * (SIDE + GAP), down - (i + 1) * (SIDE + ABOVE))
                axis = figure.add_axes((place[0] / across, place[1] / down, SIDE / across, SIDE / down))
                axis.imshow(tiled(next(iter(runs.values()))["samples"].astype(np.uint8), rows), interpolation="none")
                axis.set_axis_off()
                label = label_of_method(results.study, method).replace("$", r"\$")
                axis.set_title(label + (f"\n{title_of(table, pair)}" if len(pairs) > 1 else ""), fontsize=8)
    return None if empty else figure
