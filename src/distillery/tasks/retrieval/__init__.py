"""The task `retrieval`: texts in, the labels that fit out, the likeliest first; a text has any number of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from distillery.task import Column, Measure, Task

_HERE = "distillery.tasks.retrieval"


class Retrieval(Task):
    """Networks score labels, (B, L); targets are (B, L) flags; students are judged by their best five."""

    measures = (
        Measure("precision@1", "test precision@1", "%", short="P@1", share=True),
        Measure("precision@3", "test precision@3", "%", short="P@3"),
        Measure("precision@5", "test precision@5", "%", short="P@5"),
    )
    columns = (
        # with the first teacher, which is the only one
        Column("overlap", "share of the best five that the teacher finds too", "fidelity.*.overlap@5", shown=True),
    )
    plain = "ova"
    parts: ClassVar[Mapping[str, str]] = {
        "training": f"{_HERE}.training:RetrievalTraining",
        "evaluation": f"{_HERE}.evaluation:RetrievalEvaluation",
        "cache": "distillery.tasks.classification.cache:run",  # scores of all labels for every row, as of classes
        "rehearsal": f"{_HERE}.rehearsal:rehearse",
    }
