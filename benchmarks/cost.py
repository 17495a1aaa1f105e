"""What a study costs on this device: device-hours and disk, from steps timed here and the study's own counts.

    python benchmarks/cost.py workflow/studies/ls_rld.yaml [--seeds N] [--steps 2] [--markdown]

Each pair's student step (ours, KD from a view table), its teacher's step and its teacher's forward pass are timed on
CIFAR-100-shaped pixels, and multiplied by the study's epochs, images, methods and seeds. A method that needs feature
maps or a second view pays the live teacher's forward in every step; its own loss is not counted (`objectives.py`).
Disk counts what is kept: students, teachers, view tables, arrays; in the DVC cache the same once more without reflinks.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from ours import Ours, pixels, random_table
from side_by_side import device, now, parser, show, use_threads

from distillery import models
from distillery.data.views import Views
from distillery.errors import DistilleryError
from distillery.objectives.build import needs as needs_of
from distillery.pipeline import check
from distillery.study.blocks import Recipe
from distillery.study.model import Study, expand_seeds
from distillery.teachers.view_table import size_in_bytes
from distillery.training.device import autocast

CLASSES, PIXELS = 100, 3 * 32 * 32  # as CIFAR-100
DATA, TABLE = pixels(2_000, None), random_table(2_000, 162, CLASSES)


@cache
def step_seconds(architecture: str, recipe: Recipe, steps: int) -> float:
    """Time one training step of our loop, the data path included."""
    ours = Ours(architecture, DATA, TABLE, recipe)
    ours.run(1)
    return ours.run(steps) / steps


@cache
def forward_seconds(architecture: str, recipe: Recipe, steps: int) -> float:
    """Time one forward pass of a teacher over a batch."""
    network = models.build(architecture, CLASSES, 3).to(device()).eval()
    images = torch.randn(recipe.batch_size, 3, 32, 32, device=device())
    with torch.no_grad(), autocast(recipe, device()):
        network(images)
        start = now()
        for _ in range(steps):
            network(images)
        return (now() - start) / steps


def images(study: Study) -> tuple[int, int]:
    """Images to train on and to test, of CIFAR-100 or a part of it."""
    if study.data.source != "cifar100":
        raise SystemExit(f"cost.py: {study.study} is of {study.data.source}; only studies of cifar100 are timed here")
    subset = study.data.options.get("subset") or {}
    classes = subset.get("classes") or CLASSES
    return classes * (subset.get("train_per_class") or 500), classes * (subset.get("test_per_class") or 100)


def size_of(architecture: str) -> int:
    """Bytes of a network's stored weights and buffers."""
    return sum(v.numel() * v.element_size() for v in models.build(architecture, CLASSES, 3).state_dict().values())


def is_live(study: Study, method: str) -> bool:
    """Say whether a method must ask the teacher itself, because no table holds what it needs."""
    needs = needs_of(study.methods[method])
    return bool(needs & {"maps", "preacts", "strong"}) or ("pooled" in needs and not study.cache.pooled)


def student_hours(study: Study, pair: str, method: str, steps: int) -> float:
    """Hours of one run."""
    recipe, spec = study.recipe_for(pair, method), study.pairs[pair]
    timed = study.recipe  # one timing serves all schedules
    seconds = step_seconds(spec.student, timed, steps)
    if is_live(study, method):
        seconds += sum(forward_seconds(study.teachers[t].architecture, timed, steps) for t in spec.teachers)
    if "strong" in needs_of(study.methods[method]):
        seconds *= 2  # a second view, for student and teacher
    return recipe.epochs * math.ceil(images(study)[0] / recipe.batch_size) * seconds / 3600


def teacher_cost(study: Study, name: str, steps: int) -> tuple[float, float, int]:
    """Hours of training a teacher, hours of building its view table, and the table's bytes."""
    recipe, architecture = study.recipe_for_teacher(name), study.teachers[name].architecture
    train, views = images(study)[0], Views(recipe.augmentation.pad, recipe.augmentation.flip, 32)
    batches = math.ceil(train / recipe.batch_size)
    training = recipe.epochs * batches * step_seconds(architecture, recipe, steps) / 3600
    building = views.count * batches * forward_seconds(architecture, recipe, steps) / 3600
    example = models.build(architecture, CLASSES, 3).eval()(torch.zeros(1, 3, 32, 32))
    columns = CLASSES + (example.pooled.shape[1] if study.cache.pooled else 0)
    return training, building, size_in_bytes(train, views.count, columns, study.cache)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, steps=2, threads=1)
    options.add_argument("study", help="a study file")
    options.add_argument("--seeds", type=int, help="default: as many as the study has")
    given = options.parse_args(argv)
    use_threads(given.threads)
    try:
        study = check.load(given.study)
    except DistilleryError as error:
        raise SystemExit(f"cost.py: {error}") from None
    seeds = given.seeds or sum(len(expand_seeds(block)) for block in study.seeds)
    rows, hours, disk, runs = [], 0.0, sum(images(study)) * PIXELS, 0
    for pair, spec in study.pairs.items():
        each = [student_hours(study, pair, method, given.steps) for method in study.methods]
        weights = len(each) * seeds * size_of(spec.student)
        shown = (f"{min(each):.3g}", f"{max(each):.3g}", f"{sum(each) * seeds:,.1f}", f"{weights / 1e9:.2f}")
        rows.append([pair, len(each) * seeds, *shown])
        hours, disk, runs = hours + sum(each) * seeds, disk + weights, runs + len(each) * seeds
    for name in study.teachers:
        training, building, table = teacher_cost(study, name, given.steps)
        rows.append([f"teacher {name}, table", 1, f"{building:.3g}", f"{training:.3g}", f"{training + building:.1f}"])
        rows[-1].append(f"{table / 1e9:.2f}")
        hours, disk = hours + training + building, disk + table
    rows.append(["all", runs, "", "", f"{hours:,.0f}", f"{disk / 1e9:.1f}"])
    heads = ["", "runs", "least h/run", "most h/run", "device-hours", "disk, GB"]
    note = f"{seeds} seeds, {given.threads} thread(s), {given.steps} timed steps of batch "
    note += f"{study.recipe.batch_size}. A teacher's two columns are the building of its table and its training."
    show(f"cost: {study.study}, on one {device().type} device", heads, rows, given.markdown, note)


if __name__ == "__main__":
    main()
