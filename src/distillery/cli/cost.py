"""What a study will train and what that costs, before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from distillery.errors import DistilleryError
from distillery.models import is_formula
from distillery.pipeline.job import Plan
from distillery.status.remaining import remaining, sentence
from distillery.status.states import look
from distillery.study.model import Study

_PASSES = 3  # forward and backward cost about three times the forward pass


def lines(study: Study, plan: Plan) -> Iterator[str]:
    """One sentence each about teachers, students, the whole training and the time that is left."""
    for name in dict.fromkeys(t for pair in study.pairs.values() for t in pair.teachers):
        teacher = study.teachers[name]
        how = {"fetch": "fetched", "student": "a student of another study"}.get(teacher.source)
        how = how or ("a formula, which nobody trains" if is_formula(teacher.architecture) else "")
        how = how or f"trained for {study.recipe_for_teacher(name).epochs} epochs"
        yield f"teacher {name}: {teacher.architecture}, {how}"
    epochs, operations, counted = 0, 0.0, True
    for name, pair in study.pairs.items():
        cells = [study.recipe_for(name, method).epochs for method in study.methods]
        runs = len(study.runs()) // len(study.pairs)
        here = sum(cells) * runs // len(cells)
        epochs += here
        found = _sizes(study, pair.student)
        said = f"pair {name}: {len(cells)} methods x {runs // len(cells)} seeds of {pair.student}"
        if found is None:
            counted = False
        else:
            parameters, macs, images = found
            operations += 2.0 * _PASSES * macs * images * here
            said += f", {parameters:,} parameters, {macs / 1e6:,.2f} M multiply-accumulates an image"
        yield said + f"; {here:,} epochs"
    if counted:
        yield (
            f"training the students: {epochs:,} epochs in all, {_operations(operations)} of them alone "
            "(teachers, their tables and the methods' own terms come on top)"
        )
    else:
        yield f"training the students: {epochs:,} epochs in all"
    yield f"time: {sentence(remaining(look(plan), study, time.time()))}"


def _sizes(study: Study, architecture: str) -> tuple[int, int, int] | None:
    """Parameters, multiply-accumulates of an image, training images; None where only the data or the task will tell."""
    from distillery import models
    from distillery.data import open_source

    shape: Any = None
    with suppress(DistilleryError):  # whose images are not here yet
        shape = getattr(open_source(study.data.source, study.data.options), "shape", lambda: None)()
    if not hasattr(shape, "num_classes") or (architecture in models.NETWORKS and models.NETWORKS[architecture].task):
        return None
    import torch

    from distillery.evaluation.macs import multiply_accumulates

    with torch.random.fork_rng(devices=[]):
        network = models.build(architecture, shape.num_classes, shape.channels)
        macs = multiply_accumulates(network, torch.zeros(1, shape.channels, shape.height, shape.width))
    return sum(p.numel() for p in network.parameters()), macs, shape.train_images


def _operations(count: float) -> str:
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e9:,.1f} GFLOP"
