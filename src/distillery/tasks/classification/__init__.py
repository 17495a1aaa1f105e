"""The task `classification`: images in, one class out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from distillery.task import Measure, Task

DECIDES_RESULTS = False  # names of parts: the parts themselves decide (see pipeline/fingerprint.py)
_HERE = "distillery.tasks.classification"


class Classification(Task):
    """Networks give logits (B, C); targets are classes (B,), or soft ones (B, C) while images are mixed."""

    name = "classification"
    measures = (
        Measure("top1", "test accuracy", "%"),
        Measure("top5", "top-5 test accuracy", "%"),
        Measure("nll", "negative log-likelihood", "nats", higher_is_better=False, digits=3),
        Measure("ece", "expected calibration error", "points", higher_is_better=False),
    )
    plain = "ce"
    parts: ClassVar[Mapping[str, str]] = {
        "training": f"{_HERE}.training:ClassTraining",
        "evaluation": f"{_HERE}.evaluation:ClassEvaluation",
        "cache": f"{_HERE}.cache:run",
        "rehearsal": f"{_HERE}.rehearsal:rehearse",
    }
