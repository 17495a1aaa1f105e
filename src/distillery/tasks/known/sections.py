"""The table of "why distillation helps": what each teacher is, and what its students gain by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distillery.evaluation.samples import sample_size
from distillery.evaluation.statistics import mean_and_sd
from distillery.task import Section

HEADER = ("student", "teacher", "N", "runs", "excess log-loss", "accuracy, %", "variance of the risk", "its bias")
NOTE = (
    "N: rows that a student trains on. Variance of the risk: over rows, of the trained student's loss with what it "
    "learnt from (labels without a teacher, else the teacher's probabilities), as a share of that with labels. Its "
    "bias: mean loss with that less mean loss with p*, nats. Definitions: third-party reading of arXiv:2005.10419; "
    "data, networks and recipe: declared design; no number is published for them."
)
SEVERAL = " Of several teachers both are said for each, in the order of their names."


def worth(cells: Sequence[Any]) -> Section:
    """A row for every cell, and one for every teacher, whose excess and accuracy are its own."""
    rows: list[tuple[str, ...]] = []
    teachers: dict[str, dict[str, Any]] = {}
    for cell in cells:
        teachers |= cell.facts.get("teachers", {})
    for name, teacher in teachers.items():
        last = teacher["last"]
        rows.append(("", f"{name} itself", "", "", f"{last['excess']:.4f}", f"{last['top1']:.2f}", "", ""))
    seen: set[tuple[Any, ...]] = set()
    for cell in cells:
        alone = cell.facts["cost"]["teacher_outputs"] == "none"
        size, runs = sample_size(cell.facts), list(cell.runs.values())
        who = "labels" if alone else " + ".join(cell.facts["teachers"])
        if alone and (key := (cell.method, size, cell.facts["architecture"])) in seen:
            continue  # the same runs in every pair
        seen |= {key} if alone else set()
        learnt = [None] if alone else list(cell.facts["teachers"])
        variances = [
            np.mean([_risk(run, of)["variance"] / run["risk"]["labels"]["variance"] for run in runs]) for of in learnt
        ]
        biases = [np.mean([_risk(run, of)["mean"] - run["risk"]["bayes"]["mean"] for run in runs]) for of in learnt]
        measured = [[run["last"][name] for run in runs] for name in ("excess", "top1")]
        texts = (
            mean_and_sd(measured[0], 4),
            mean_and_sd(measured[1], 2),
            " + ".join(f"{share:.2f}" for share in variances),
            " + ".join(f"{bias:+.4f}" for bias in biases),
        )
        rows.append((cell.label, who, str(size), str(len(runs)), *texts))
    several = SEVERAL if any(" + " in row[1] for row in rows) else ""
    return Section("What a teacher is worth", HEADER, tuple(rows), NOTE + several)


def _risk(run: dict[str, Any], teacher: str | None) -> dict[str, float]:
    """Mean and variance of the loss with a teacher's probabilities, or with labels."""
    if teacher is None:
        found: dict[str, float] = run["risk"]["labels"]
        return found
    fidelity = run["fidelity"][teacher]
    return {"mean": fidelity["risk_mean"], "variance": fidelity["risk_variance"]}
