"""Stage `distill`: the students of one cell (pair and method) for one block of seeds, trained in one process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillery.models.base import Network
from distillery.models.seeing import Seeing
from distillery.objectives.build import Loss
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.stages.finished import Finished
from distillery.study.blocks import Method, Recipe
from distillery.task import task_of
from distillery.teachers.verified import open_teachers
from distillery.training.checkpoint import Checkpoint
from distillery.training.compiled import counted, share_cache
from distillery.training.device import set_up
from distillery.training.history import save_history
from distillery.training.loop import Diverged
from distillery.training.parallel import Ranks
from distillery.training.progress import Progress
from distillery.training.task import Training
from distillery.training.together import Run, fit_all


def run(work: Work) -> None:
    values, (pair, method, _) = work.job.values, work.job.keys
    task = task_of(values["task"])
    training: Training = task.part("training")(task)
    objective, recipe = Method.model_validate(values["objective"]), Recipe.model_validate(values["recipe"])
    loss = Loss(objective)
    ranks = Ranks.launched()
    device = set_up(recipe, ranks)
    work.on(device)
    # Results depend on these in the last bits. Several ranks take eager steps, whatever recipe.graph says.
    hardware = {"device": device.type, "threads": torch.get_num_threads(), "ranks": ranks.size}
    finished = Finished(work, hardware)
    with ranks.once(work.making(ranks.size == 1)) as volatile, ranks.joined(device):
        data = training.load(work.job.reads["arrays"], work.sha256("arrays"), recipe, device)
        if "labelled" in values:
            data = training.hidden(data, values["labelled"], loss.unlabelled)
        loader = training.loader(data, recipe)
        described = artifacts.read_json(work.job.reads["pair"])["teachers"]
        networks = open_teachers(training, values["teachers"], described, data, device, recipe) if loss.needs else []
        source, how = training.teaching(work.job, described, networks, recipe, data)
        weights: dict[str, Tensor] = {}
        histories: dict[str, list[dict[str, Any]]] = {}
        checkpoints = []
        if recipe.compile:
            share_cache(work.job.layout.compiled)
        at_once = work.settings.get("at_once", 1) if ranks.size == 1 else 1
        todo: dict[int, Run] = {}
        failed: Diverged | None = None
        for seed, path in zip(work.job.seeds, work.job.checkpoints, strict=True):
            trainee = training.assemble(values["student"], objective, data, networks, seed)
            if found := finished.run(seed):
                taken, histories[str(seed)] = found
                weights |= taken
            else:
                checkpoints.append(Checkpoint(path, finished.identity(seed)))
                progress = Progress(f"{pair} {method} seed {seed}", volatile, bar=at_once == 1) if ranks.first else None
                todo[seed] = Run(trainee, seed, checkpoints[-1], progress)
            if todo and (len(todo) == at_once or seed == work.job.seeds[-1]):
                try:
                    made = fit_all([*todo.values()], loader, source, recipe, ranks)
                except Diverged as error:  # the seeds behind are trained all the same: their checkpoints keep them
                    failed = failed or error
                else:
                    histories |= {str(seed): history for seed, history in zip(todo, made, strict=True)}
                    for each, run in todo.items():
                        weights |= {f"{each}.{k}": v.cpu() for k, v in run.trainee.state_dict().items()}
                todo = {}
        if failed:
            raise failed
        if not ranks.first:
            return
        if recipe.compile:
            work.volatile["compiled"] = counted()
        predicts = trainee.objective.predicts
        if predicts:  # so that the file says by itself how its students predict
            weights |= training.beside(networks, data)
        header = training.header(data, **_told(work, networks), predicts=predicts)
        artifacts.save_tensors(work.job.outputs["weights"], weights, header.metadata())
        save_history(work.job.outputs["history"], histories)
        work.write(
            architecture=values["student"],
            teachers=list(values["teachers"]) if networks else [],
            teacher_outputs=how,
            objective=values["objective"],
            recipe=values["recipe"],
            parameters=sum(p.numel() for p in trainee.student.parameters()),
            extra_parameters=sum(p.numel() for p in trainee.objective.parameters()),
            images_seen=recipe.epochs * loader.count * (2 if "strong" in loss.needs else 1),
            seeds=list(work.job.seeds),
            **hardware,
        )
        for checkpoint in checkpoints:
            checkpoint.discard()


def _told(work: Work, networks: list[Network]) -> dict[str, Any]:
    """What the file of weights says of the study; `networks` are the teachers, if the method asks for any."""
    values, (pair, method, _) = work.job.values, work.job.keys
    teachers = dict(zip(values["teachers"], networks, strict=True)) if networks else {}
    return {
        "kind": "students",
        "study": work.job.study,
        "pair": pair,
        "method": method,
        "seeds": work.job.seeds,
        "architecture": values["student"],
        "recipe": values["recipe"],
        "objective": values["objective"],
        "teachers": {name: values["teachers"][name]["architecture"] for name in teachers},
        "preprocessing": {name: network.own for name, network in teachers.items() if isinstance(network, Seeing)},
        "settings_sha256": artifacts.sha256_json(values),
    }
