"""The task `classification`: images in, one class out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from distillery.task import TOP1, Column, Measure, Task

_HERE = "distillery.tasks.classification"


class Classification(Task):
    """Networks give logits (B, C); targets are classes (B,), or soft ones (B, C) while images are mixed."""

    measures: ClassVar[tuple[Measure, ...]] = (
        TOP1,
        Measure("top5", "top-5 test accuracy", "%", short="top-5", share=True),
    )
    columns: ClassVar[tuple[Column, ...]] = (
        Column("nll", "negative log-likelihood, nats", "nll", shown=True),
        Column("ece", "expected calibration error, points", "ece", shown=True),
        Column("entropy", "mean entropy of the output, nats", "entropy", shown=True),
        # of the first teacher, which is the only one outside ensembles
        Column("agreement", "same prediction as the teacher, %", "fidelity.*.agreement", shown=True),
        Column("kl_teacher", "KL(teacher || student), nats", "fidelity.*.kl", shown=True),
        Column(
            "logit_correlation",
            "correlation of standardised logits with the teacher's",
            "fidelity.*.logit_correlation",
            shown=True,
        ),
        Column("logit_mean", "mean logit", "logits.mean"),
        Column("logit_std", "standard deviation of an image's logits", "logits.std", shown=True),
        Column("logit_range", "range of an image's logits", "logits.range", shown=True),
    )
    plain = "ce"
    labelled = True
    parts: ClassVar[Mapping[str, str]] = {
        "training": f"{_HERE}.training:ClassTraining",
        "evaluation": f"{_HERE}.evaluation:ClassEvaluation",
        "cache": f"{_HERE}.cache:run",
        "rehearsal": f"{_HERE}.rehearsal:rehearse",
    }
