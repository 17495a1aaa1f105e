"""The figures of a study, as SVG and PDF. The same results give the same bytes: no date, no random identifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distillery.report.figures import (
    classwise,
    cost,
    curves,
    detections,
    differences,
    gaps,
    logits,
    published,
    reliability,
    samples,
    teachers,
    temperature,
    why,
)
from distillery.report.figures.style import save
from distillery.report.results import Results
from distillery.report.table import Table

Caption = str | Callable[[Table], str]  # the text, or what makes it of what the figure has to show

# file name -> (caption, drawing); a drawing gives None where the study has nothing of the kind to show
FIGURES: dict[str, tuple[Caption, Callable[[Results, Table], Figure | None]]] = {
    "differences": (differences.caption, differences.draw),
    "improvement": (differences.caption_of_improvement, differences.draw_improvement),
    "curves": (curves.caption, curves.draw),
    "cost": (cost.caption, cost.draw),
    "samples": ("What the first run of every method generates: a row of images for each class shown.", samples.draw),
    "detections": (
        "What teacher, baseline and best other method find in a few test images, from a score of 0.3 on; first run of "
        "each. Solid: an object of that class, IoU 0.5 or more; dotted: none; white dashes: the objects themselves.",
        detections.draw,
    ),
    "published": (
        "Ours against published numbers; bars: one standard deviation, where known; hollow where the two were not "
        "trained alike.",
        published.draw,
    ),
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
    "temperature": (temperature.caption, temperature.draw),
    "gaps": (
        "Gaps between groups by temperature: mean and standard deviation over all pairs and seeds; smaller is fairer.",
        gaps.draw,
    ),
    "why": (
        "Excess log-loss of students and variance of their risk by sample size and teacher; for the largest sample, "
        "students by how accurate their teacher is and by how far it is from Bayes' rule.",
        why.draw,
    ),
    "teachers": (teachers.caption, teachers.draw),
}


# What the results of every run must hold, where a task may not measure it.
ASKS = {
    "classwise": "per_class",
    "disagreement": "predictions",
    "logits": "logits",
    "reliability": "reliability",
    "gaps": "groups",
    "why": "risk",
    "samples": "samples",
    "detections": "detections",
}
PICTURES = {"samples", "detections"}  # show images, whose colours stay as they are on a dark page


def captions(table: Table) -> dict[str, str]:
    """What is said below every figure of a study, by its name."""
    return {name: said if isinstance(said, str) else said(table) for name, (said, _) in FIGURES.items()}


def draw_all(results: Results, table: Table, folder: Path) -> list[str]:
    """Write every figure that the study has something to show in, and return their names."""
    drawn = []
    run: dict[str, Any] = next((run for cell in results for run in cell.runs.values()), {})
    for name, (_, draw) in FIGURES.items():
        if name in ASKS and ASKS[name] not in run:
            continue
        figure = draw(results, table)
        if figure is not None:
            save(figure, folder / name)
            drawn.append(name)
    return drawn
