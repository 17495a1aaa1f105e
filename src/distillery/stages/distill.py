"""Stage `distill`: the students of one cell (pair and method) for one block of seeds, trained in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.models.base import Network
from distillery.models.seeing import Seeing
from distillery.objectives.build import Loss
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.records.header import Header
from distillery.stages.finished import Finished
from distillery.study.blocks import Method, Recipe
from distillery.teachers.source import LiveTeachers, TableTeachers
from distillery.teachers.verified import open_teachers
from distillery.teachers.view_table import ViewTable
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import set_up
from distillery.training.history import save_history
from distillery.training.loop import fit
from distillery.training.parallel import Ranks
from distillery.training.progress import Progress
from distillery.training.teaching import TeacherSource
from distillery.training.trainee import assemble


def run(work: Work) -> None:
    values, (pair, method, _) = work.job.values, work.job.keys
    spec, recipe = Method.model_validate(values["objective"]), Recipe.model_validate(values["recipe"])
    ranks = Ranks.launched()
    device = set_up(recipe, ranks)
    # Results depend on these in the last bits. Several ranks take eager steps, whatever recipe.graph says.
    hardware = {"device": device.type, "threads": torch.get_num_threads(), "ranks": ranks.size}
    finished = Finished(work, hardware)
    with ranks.once(work.making(ranks.size == 1)) as volatile, ranks.joined(device):
        data = Dataset.load(work.job.reads["arrays"], sha256=work.sha256("arrays"))
        data = data.hold_out(recipe.validation).to(device)
        needs = Loss(spec).needs
        described = artifacts.read_json(work.job.reads["pair"])["teachers"]
        networks = open_teachers(values["teachers"], described, data, device, recipe) if needs else []
        source, how = _source(work, described, needs, networks, recipe, data)
        weights: dict[str, Tensor] = {}
        histories: dict[str, list[dict[str, Any]]] = {}
        checkpoints = []
        for seed, path in zip(work.job.seeds, work.job.checkpoints, strict=True):
            trainee = assemble(values["student"], spec, data, networks, seed)
            if found := finished.run(seed):
                taken, histories[str(seed)] = found
                weights |= taken
                continue
            checkpoints.append(Checkpoint(path, finished.identity(seed)))
            with ranks.once(Progress(f"{pair} {method} seed {seed}", volatile)) as progress:
                histories[str(seed)] = fit(trainee, data, source, recipe, seed, checkpoints[-1], progress, ranks)
            weights |= {f"{seed}.{k}": v.cpu() for k, v in trainee.state_dict().items()}
        if not ranks.first:
            return
        predicts = trainee.objective.predicts
        if predicts:  # so that the file says by itself how its students predict
            weights |= _beside(networks, data)
        header = Header.of(
            data,
            kind="students",
            study=work.job.study,
            pair=pair,
            method=method,
            seeds=work.job.seeds,
            architecture=values["student"],
            recipe=values["recipe"],
            objective=values["objective"],
            predicts=predicts,
            teachers={name: t["architecture"] for name, t in values["teachers"].items()} if needs else {},
            preprocessing={
                name: network.own
                for name, network in zip(values["teachers"], networks, strict=False)  # without networks: no teacher
                if isinstance(network, Seeing)
            },
            settings_sha256=artifacts.sha256_json(values),
        )
        artifacts.save_tensors(work.job.outputs["weights"], weights, header.metadata())
        save_history(work.job.outputs["history"], histories)
        work.write(
            architecture=values["student"],
            teachers=list(values["teachers"]) if needs else [],
            teacher_outputs=how,
            objective=values["objective"],
            recipe=values["recipe"],
            parameters=sum(p.numel() for p in trainee.student.parameters()),
            extra_parameters=sum(p.numel() for p in trainee.objective.parameters()),
            images_seen=recipe.epochs * len(data.train_labels) * (2 if "strong" in needs else 1),
            seeds=list(work.job.seeds),
            **hardware,
        )
        for checkpoint in checkpoints:
            checkpoint.discard()


def _beside(networks: list[Network], data: Dataset) -> dict[str, Tensor]:
    """What an objective that takes part in the prediction is rebuilt from: the first teacher, and an image."""
    teacher = {f"teacher.{k}": v.cpu() for n in networks[:1] for k, v in n.state_dict().items()}
    return teacher | {"example": data.test_images[:1].cpu()}


def _source(
    work: Work,
    pair: dict[str, Any],
    needs: frozenset[str],
    networks: list[Network],
    recipe: Recipe,
    data: Dataset,
) -> tuple[TeacherSource | None, str]:
    """Choose view tables if they hold what the method needs and were made for this augmentation; else live teachers."""
    if not networks:
        return None, "none"
    cached = work.job.values["cached"]
    why = next((teacher["live"] for teacher in pair.values() if "live" in teacher), None)
    if needs & {"maps", "preacts"}:
        why = "the method needs feature maps"
    elif "strong" in needs:
        why = "the strong view cannot be enumerated"
    elif "pooled" in needs and not cached["pooled"]:
        why = "the table holds no pooled features (cache.pooled)"
    elif recipe.augmentation.model_dump() != cached["augmentation"]:
        why = why or "the table was built for another augmentation"
    if why is not None:
        return LiveTeachers(networks, recipe, preacts="preacts" in needs), f"live teacher: {why}"
    device = data.train_images.device
    tables = []
    for name, teacher in work.job.values["teachers"].items():
        path = Path(teacher["table"])
        table = ViewTable.open(path, pair[name]["table"], work.job.layout.hash_note(path))
        tables.append(table.place(device))
    return TableTeachers(tables), "view table"
