"""The figures of a study, as SVG. The same results give the same bytes: no date, no random identifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distillery.report.figures import classwise, cost, curves, logits, published, reliability, samples, temperature
from distillery.report.figures.style import save
from distillery.report.results import Results
from distillery.report.table import Table

# file name -> (caption, drawing); a drawing gives None where the study has nothing of the kind to show
FIGURES: dict[str, tuple[str, Callable[[Results, Table], Figure | None]]] = {
    "curves": (
        "Test scores while training: mean over seeds; band of one standard deviation, for up to ten methods.",
        curves.draw,
    ),
    "cost": ("Accuracy against what training cost, in multiply-accumulates of student and live teacher.", cost.draw),
    "samples": ("What the first run of every method generates: a row of images for each class shown.", samples.draw),
    "published": ("Ours against published numbers, only where like is compared with like.", published.draw),
    "classwise": (
        "Change of every class beyond the change of overall accuracy, against the student trained alone. "
        "Dots: significant by Welch's test, each class for itself; circles or line: the other classes.",
        classwise.draw,
    ),
    "disagreement": (
        "Where the distilled students and those trained alone disagree: images by both predictions, summed over seeds.",
        classwise.draw_disagreement,
    ),
    "logits": ("Distribution of the logits on the test set, all runs of a method together.", logits.draw),
    "reliability": (
        "Accuracy against confidence on the test set; points on the diagonal are perfectly calibrated.",
        reliability.draw,
    ),
    "temperature": (
        "Methods that differ in the temperature alone: accuracy and significant classes.",
        temperature.draw,
    ),
}


# What the results of every run must hold, where a task may not measure it.
ASKS = {
    "classwise": "per_class",
    "disagreement": "predictions",
    "logits": "logits",
    "reliability": "reliability",
    "samples": "samples",
}


def draw_all(results: Results, table: Table, folder: Path) -> list[str]:
    """Write every figure that the study has something to show in, and return their names."""
    drawn = []
    run: dict[str, Any] = next((run for cell in results for run in cell.runs.values()), {})
    for name, (_, draw) in FIGURES.items():
        if name in ASKS and ASKS[name] not in run:
            continue
        figure = draw(results, table)
        if figure is not None:
            save(figure, folder / f"{name}.svg")
            drawn.append(name)
    return drawn
