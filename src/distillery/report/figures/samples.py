"""What generators make: a row of images of each of some classes, for every method."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from distillery.evaluation.samples import shown_classes
from distillery.report.figures.style import STYLE, title_of
from distillery.report.results import Results
from distillery.report.table import Table

TILE, BETWEEN, BESIDE, ABOVE = 0.32, 0.15, 0.85, 0.45  # an image; between panels; for class names; for titles: inches


def tiled(samples: np.ndarray, rows: int) -> np.ndarray:
    """(rows * columns, H, W, C) images as one, row by row with white lines between; grey ones as colour."""
    line = max(1, samples.shape[1] // 16)
    framed = np.pad(samples, ((0, 0), (0, line), (0, line), (0, 0)), constant_values=255)
    count, height, width, channels = framed.shape
    grid = framed.reshape(rows, count // rows, height, width, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * height, count // rows * width, channels)[:-line, :-line]
    return grid.repeat(3, axis=2) if channels == 1 else grid


def draw(results: Results, table: Table) -> Figure | None:
    """The first run of every method; the same noise and classes in all of them."""
    pairs, methods = list(results.study.pairs), [row.name for row in table.rows if row.kind != "teacher"]
    names = results.first().get("data", {}).get("class_names", [])
    shown = {
        (p, m): next(iter(runs.values()))["samples"]
        for p in pairs
        for m in methods
        if (runs := results.cells[p, m].runs)
    }
    if not shown or not names:
        return None
    classes = shown_classes(len(names))
    rows = len(classes)
    tall, wide = rows * TILE, len(next(iter(shown.values()))) // rows * TILE
    across, down = BESIDE + len(methods) * (wide + BETWEEN), len(pairs) * (tall + ABOVE)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(across, down))
        for (pair, method), samples in shown.items():
            i, j = pairs.index(pair), methods.index(method)
            left, bottom = BESIDE + j * (wide + BETWEEN), down - (i + 1) * (tall + ABOVE)
            axis = figure.add_axes((left / across, bottom / down, wide / across, tall / down))
            grid = tiled(samples.astype(np.uint8), rows)
            axis.imshow(grid, interpolation="none")
            axis.set_frame_on(False)
            axis.set_xticks([])
            named = [names[c] for c in classes] if j == 0 else []
            axis.set_yticks([(k + 0.5) * len(grid) / rows for k in range(len(named))], named, fontsize=6)
            axis.tick_params(length=0)
            label = results.study.label(method).replace("$", r"\$")
            axis.set_title(label + (f"\n{title_of(table, pair)}" if len(pairs) > 1 else ""), fontsize=8)
    return figure
