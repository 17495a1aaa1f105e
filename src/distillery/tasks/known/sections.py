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
        variances = [_risk(run, alone)["variance"] / run["risk"]["labels"]["variance"] for run in runs]
        biases = [_risk(run, alone)["mean"] - run["risk"]["bayes"]["mean"] for run in runs]
        measured = [[run["last"][name] for run in runs] for name in ("excess", "top1")]
        texts = (
            mean_and_sd(measured[0], 4),
            mean_and_sd(measured[1], 2),
            f"{np.mean(variances):.2f}",
            f"{np.mean(biases):+.4f}",
        )
        rows.append((cell.label, who, str(size), str(len(runs)), *texts))
    return Section("What a teacher is worth", HEADER, tuple(rows), NOTE)


def _risk(run: dict[str, Any], alone: bool) -> dict[str, float]:
    """Mean and variance of the loss with what the student learnt from."""
    if alone:
        found: dict[str, float] = run["risk"]["labels"]
        return found
    fidelity = next(iter(run["fidelity"].values()))
    return {"mean": fidelity["risk_mean"], "variance": fidelity["risk_variance"]}
