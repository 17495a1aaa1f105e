"""Stage `distill`: the students of one cell (pair and method) for one block of seeds, trained in one process."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.models.base import Network
from distillery.objectives.build import needs as needs_of
from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records.job import describe, making
from distillery.study.model import Recipe, Study, expand_seeds
from distillery.teachers.pair import open_teachers
from distillery.teachers.source import LiveTeachers, TableTeachers, TeacherSource
from distillery.teachers.view_table import ViewTable
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import set_up
from distillery.training.loop import fit
from distillery.training.parallel import Ranks
from distillery.training.progress import Progress
from distillery.training.trainee import assemble


def run(study: Study, params: Path, pair: str, method: str, seed: str) -> None:
    layout, spec = Layout(study.study), study.methods[method].for_pair(pair)
    recipe = study.recipe_for(pair, method)
    record = describe(
        "distill", [layout.arrays, layout.data, layout.pair(pair)], params, spec, pair=pair, method=method, seed=seed
    )
    ranks = Ranks.launched()
    device = set_up(recipe, ranks)
    output = layout.students(pair, method, seed)
    made = layout.runs(pair, method, seed) if ranks.size == 1 else None  # the others would wait for the first
    with ranks.once(making(layout, output, made, record)) as volatile, ranks.joined(device):
        data = Dataset.load(layout.arrays.parent, sha256=record["inputs"][str(layout.arrays)])
        data = data.hold_out(recipe.validation).to(device)
        needs = needs_of(spec)
        networks = [] if not needs else open_teachers(study, layout, pair, data, device, recipe)
        source, how = _source(layout, study, pair, needs, networks, recipe, data)
        # Results depend on these in the last bits. Several ranks take eager steps, whatever recipe.graph says.
        hardware = {"device": device.type, "threads": torch.get_num_threads(), "ranks": ranks.size}
        weights: dict[str, Tensor] = {}
        runs, checkpoints = [], []
        for number in expand_seeds(seed):
            trainee = assemble(study.pairs[pair].student, spec, data, networks, number)
            key = artifacts.sha256_json(record | hardware | {"seed": number})
            checkpoints.append(Checkpoint(layout.checkpoint(pair, method, str(number)), key))
            with ranks.once(Progress(f"{pair} {method} seed {number}", volatile)) as progress:
                history = fit(trainee, data, source, recipe, number, checkpoints[-1], progress, ranks)
            weights |= {f"{number}.{k}": v.cpu() for k, v in trainee.state_dict().items()}
            runs.append({"seed": number, "history": history})
        if not ranks.first:
            return
        artifacts.save_tensors(output, weights)
        student = trainee.student
        facts = {
            "architecture": study.pairs[pair].student,
            "teachers": list(study.pairs[pair].teachers) if needs else [],
            "teacher_outputs": how,
            "objective": spec.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "parameters": sum(p.numel() for p in student.parameters()),
            "extra_parameters": sum(p.numel() for p in trainee.objective.parameters()),
            "images_seen": recipe.epochs * len(data.train_labels) * (2 if "strong" in needs else 1),
            "runs": runs,
        }
        artifacts.write_json(layout.runs(pair, method, seed), record | hardware | facts)
        for checkpoint in checkpoints:
            checkpoint.discard()


def _source(
    layout: Layout,
    study: Study,
    pair: str,
    needs: frozenset[str],
    networks: list[Network],
    recipe: Recipe,
    data: Dataset,
) -> tuple[TeacherSource | None, str]:
    """Choose view tables if they hold what the method needs and were made for this augmentation; else live teachers."""
    if not networks:
        return None, "none"
    names = study.pairs[pair].teachers
    records = [artifacts.read_json(layout.table_record(name)) for name in names]
    why = next((r["live"] for r in records if "live" in r), None)
    if needs & {"maps", "preacts"}:
        why = "the method needs feature maps"
    elif "strong" in needs:
        why = "the strong view cannot be enumerated"
    elif "pooled" in needs and not study.cache.pooled:
        why = "the table holds no pooled features (cache.pooled)"
    elif recipe.augmentation != study.recipe.augmentation:
        why = why or "the table was built for another augmentation"
    if why is not None:
        return LiveTeachers(networks, recipe, preacts="preacts" in needs), f"live teacher: {why}"
    device = data.train_images.device
    tables = [
        ViewTable.open(layout.table(name), record, layout.hash_note(layout.table(name))).place(device)
        for name, record in zip(names, records, strict=True)
    ]
    return TableTeachers(tables), "view table"
