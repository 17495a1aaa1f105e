"""The task `known`: classification where the class probabilities are known, to see why distillation helps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from distillery.task import TOP1, Column, Measure, Section
from distillery.tasks.classification import Classification

_HERE = "distillery.tasks.known"


class Known(Classification):
    """Students are judged by how far their probabilities are from Bayes' rule: Menon et al. (arXiv:2005.10419).

    Every run draws a sample of its own, of `recipe.batch_size` training rows, and trains on it in whole batches: an
    epoch is a step, and the seeds are repetitions of the whole experiment.
    """

    measures = (
        Measure("excess", "excess log-loss", "nats", higher_is_better=False, digits=4, short="excess log-loss"),
        Measure("distance", "squared distance to Bayes' rule", higher_is_better=False, digits=4),
        TOP1,
    )
    columns = (
        *Classification.columns,
        Column("variance_labels", "variance over rows of the loss with the label", "risk.labels.variance", shown=True),
        Column("variance_bayes", "variance over rows of the loss with p*", "risk.bayes.variance", shown=True),
        Column(
            "variance_teacher",
            "variance over rows of the loss with the teacher's probabilities",
            "fidelity.*.risk_variance",
            shown=True,
        ),
        Column("mean_labels", "mean loss with the label", "risk.labels.mean"),
        Column("mean_bayes", "mean loss with p*", "risk.bayes.mean"),
        Column("mean_teacher", "mean loss with the teacher's probabilities", "fidelity.*.risk_mean"),
    )
    parts: ClassVar[Mapping[str, str]] = {
        **Classification.parts,
        "training": f"{_HERE}.training:KnownTraining",
        "evaluation": f"{_HERE}.evaluation:KnownEvaluation",
        "rehearsal": f"{_HERE}.rehearsal:rehearse",
    }

    def sections(self, cells: Iterable[Any]) -> list[Section]:
        """What each teacher is worth, beside what it is."""
        from distillery.tasks.known.sections import worth

        return [worth(list(cells))]
