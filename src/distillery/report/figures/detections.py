"""What detectors find in a few test images: the teacher, the baseline and the best method."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from distillery.report.figures.style import STYLE, plain, title_of
from distillery.report.results import Results
from distillery.report.table import Table

SIDE, GAP, ABOVE = 2.2, 0.1, 0.3  # of a panel, in inches
SURE, OVERLAP = 0.3, 0.5  # least score that is drawn; least IoU of a detection with its object
OBJECT, RIGHT, WRONG = "#ffffff", "#009E73", "#D55E00"  # Okabe and Ito's; lines differ, too


def draw(results: Results, table: Table) -> Figure | None:
    """The first run of each; of a study with several pairs the first one. None where there are no images to show."""
    if not results.study.tables.pictures:
        return None
    pair = next((p for p in results.study.pairs if "example_images" in results.first(p)), None)
    if pair is None:
        return None
    facts, rows = results.first(pair), _rows(results, table, pair)
    wide = len(facts["example_rows"])
    high = SIDE * min(1.4, max(h / w for h, w, *_ in facts["example_sizes"]))
    across, down = wide * (SIDE + GAP) + GAP, len(rows) * (high + ABOVE)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(across, down))
        for i, (label, found) in enumerate(rows):
            for j in range(wide):
                place = (GAP + j * (SIDE + GAP), down - (i + 1) * (high + ABOVE))
                axis = figure.add_axes((place[0] / across, place[1] / down, SIDE / across, high / down), anchor="NW")
                _panel(axis, facts, j, found)
                if j == 0:
                    axis.set_title(label, loc="left", fontsize=8, pad=3)
    return figure


def _rows(results: Results, table: Table, pair: str) -> list[tuple[str, np.ndarray]]:
    """Label and (N, 100, 6) detections of the teacher, the baseline and the best of the other methods."""
    means = {
        r.name: r.entries[pair].mean for r in table.rows if r.kind != "teacher" and results.cells[pair, r.name].runs
    }
    gains = {name: table.measure.gain(mean) for name, mean in means.items() if mean is not None}
    first = table.baseline if table.baseline in gains else next(iter(gains), None)
    best = max((name for name in gains if name != first), key=gains.__getitem__, default=None)
    of = f" of {title_of(table, pair)}" if len(results.study.pairs) > 1 else ""
    rows = [(f"teacher {name}", t["detections"]) for name, t in results.first(pair)["teachers"].items()][:1]
    for name in filter(None, (first, best)):
        run = next(iter(results.cells[pair, name].runs.values()))
        rows.append((table.label(name) + of, run["detections"]))
    return [(plain(label), found) for label, found in rows]


def _panel(axis: Axes, facts: dict[str, Any], which: int, found: np.ndarray) -> None:
    row, (high, wide, height, width) = int(facts["example_rows"][which]), facts["example_sizes"][which]
    image = facts["example_images"][which][:high, :wide].astype(np.uint8)
    axis.imshow(image, extent=(0, width, height, 0), interpolation="none")
    axis.set_axis_off()
    objects = slice(*facts["test_starts"][row : row + 2])
    boxes, labels = facts["test_boxes"][objects], facts["test_labels"][objects]
    left_top = boxes[:, :2]
    truth = np.concatenate([left_top, left_top + boxes[:, 2:]], axis=1)
    names = facts["data"]["class_names"]
    sure = found[row][found[row][:, 4] >= SURE]
    right = matched(sure, truth, labels, facts["test_crowd"][objects].astype(bool))
    for corners in truth:
        _box(axis, corners, OBJECT, (0, (2, 2)))
    for detection, good in zip(sure, right, strict=True):
        colour = RIGHT if good else WRONG
        _box(axis, detection[:4], colour, "-" if good else ":")
        label = f"{names[int(detection[5])] or int(detection[5])} {detection[4]:.2f}"
        about = {"facecolor": colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
        left, top = max(float(detection[0]), 0.0), max(float(detection[1]), 0.0)
        at = "bottom" if top > 0.08 * height else "top"  # above the box, or in it where there is no room
        axis.text(left, top, plain(label), fontsize=4.5, color="white", va=at, bbox=about, clip_on=True)


def _box(axis: Axes, corners: np.ndarray, colour: str, line: Any) -> None:
    left, top, right, bottom = corners.tolist()
    outline = Rectangle(
        (left, top), right - left, bottom - top, fill=False, edgecolor=colour, linestyle=line, linewidth=1
    )
    axis.add_patch(outline)


def matched(found: np.ndarray, truth: np.ndarray, labels: np.ndarray, crowd: np.ndarray) -> list[bool]:
    """Which of (n, 6) detections, the surest first, have an object of their class and IoU 0.5 for themselves.

    Args:
        truth, labels: (m, 4) corners and (m,) classes of the objects.
        crowd: (m,) whether an object is several, and so any number of detections are right about it.
    """
    right, free = [], np.ones(len(truth), dtype=bool)
    for detection in found:
        low, high = np.maximum(truth[:, :2], detection[:2]), np.minimum(truth[:, 2:], detection[2:4])
        inner = (high - low).clip(min=0).prod(1)
        union = (truth[:, 2:] - truth[:, :2]).prod(1) + (detection[2:4] - detection[:2]).prod() - inner
        overlap = np.where((labels == detection[5]) & free, inner / union.clip(min=1e-9), 0.0)
        best = int(overlap.argmax()) if len(overlap) else -1
        right.append(best >= 0 and bool(overlap[best] >= OVERLAP))
        if right[-1]:
            free[best] = crowd[best]
    return right
