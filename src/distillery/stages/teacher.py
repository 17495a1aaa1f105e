"""Stage `teacher`: a teacher's weights, trained here by the recipe, fetched, or a student of another study."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distillery.data.dataset import Dataset
from distillery.data.loader import Loader
from distillery.models.seeing import Seeing, see
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.records.preprocessing import Preprocessing
from distillery.study.blocks import Method, Recipe
from distillery.task import Measure, task_of
from distillery.teachers.fetch import NoMirror, fetch, verify
from distillery.teachers.released import Source
from distillery.teachers.student import serves
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import set_up
from distillery.training.history import save_history
from distillery.training.loop import fit
from distillery.training.parallel import Ranks
from distillery.training.progress import Progress
from distillery.training.task import Training
from distillery.training.trainee import Trainee


def run(work: Work) -> None:
    values, name = work.job.values, work.job.keys[0]
    task = task_of(values["task"])
    training: Training = task.part("training")(task)
    recipe = Recipe(**values.get("recipe", {}), test_every=work.settings["test_every"][name])
    ranks = Ranks.launched()
    device = set_up(recipe, ranks if values["source"] == "train" else None)  # one process fetches
    with ranks.once(work.making(ranks.size == 1)) as volatile, ranks.joined(device):
        data = training.load(work.job.reads["arrays"], work.sha256("arrays"), recipe, device)
        loader = training.loader(data, recipe)
        trainee = training.assemble(values["architecture"], Method(objective=task.plain), data, [], values["seed"])
        checkpoint = Checkpoint(
            work.job.checkpoints[0], artifacts.sha256_json([work.identity, values["seed"], ranks.size])
        )
        made: dict[str, Any] = {}
        history: list[dict[str, Any]] = []
        if values["source"] != "train":
            made = _fetch(_source(work, data), work, trainee, loader, data, recipe, task.main)
        if "fetched" not in made:
            with ranks.once(Progress(f"teacher {name}", volatile)) as progress:
                history = fit(trainee, loader, None, recipe, values["seed"], checkpoint, progress, ranks)
            made |= {"recipe": values["recipe"], "ranks": ranks.size}
        if not ranks.first:
            return
        weights = {k: v.cpu() for k, v in trainee.student.state_dict().items()}
        header = training.header(
            data,
            kind="teacher",
            study=work.job.study,
            teacher=name,
            seeds=(values["seed"],),
            architecture=values["architecture"],
            recipe=made.get("recipe", {}),
            settings_sha256=artifacts.sha256_json(values),
            preprocessing={name: trainee.student.own} if isinstance(trainee.student, Seeing) else {},
            licence=values.get("licence") if "fetched" in made else None,
        )
        artifacts.save_tensors(work.job.outputs["weights"], weights, header.metadata())
        save_history(work.job.outputs["history"], {"teacher": history})
        size = sum(p.numel() for p in trainee.student.parameters())
        work.write(architecture=values["architecture"], seed=values["seed"], parameters=size, **made)
        checkpoint.discard()


def _source(work: Work, data: Dataset) -> Source:
    """Where the weights come from."""
    values, name = work.job.values, work.job.keys[0]
    if values["source"] != "student":
        return Source(tuple(values["urls"]), values["member"], values["sha256"], values["accuracy"])
    path = Path(work.settings["students"][name])
    serves(name, path, values["seed"], values["architecture"], data)
    return Source((str(path),), f"{values['seed']}.student", None, None)


def _fetch(
    source: Source, work: Work, trainee: Trainee, loader: Loader, data: Any, recipe: Recipe, measure: Measure
) -> dict[str, Any]:
    """Fill the student of `trainee` with released weights, and say where they are from and how good they were found.

    If no mirror helps and the study wants the teacher trained then, the network is left alone and only that is said.
    """
    values, teacher = work.job.values, work.job.keys[0]
    try:
        with Progress(f"fetch {teacher}") as progress:

            def megabytes(done: int, total: int | None) -> None:
                if total:  # a server that does not say how much is to come gets no bar
                    progress.show(math.ceil(done / 1e6), math.ceil(total / 1e6), "MB", "")

            found = fetch(teacher, trainee.student, source, megabytes)
    except NoMirror as error:
        if values.get("fallback") != "train":
            raise
        print(f"teacher {teacher} is trained here, because every mirror failed: {error.listed}", flush=True)
        work.volatile["mirrors"] = error.failures  # not in the record: which way a host is dead differs from day to day
        return {"fallback": "trained here, because every mirror failed", "mirrors": list(error.failures)}
    if values.get("preprocessing"):
        own = Preprocessing.model_validate(values["preprocessing"])
        trainee.student = see(trainee.student, own, data.mean, data.std)
    trainee.student.to(loader.device)
    # In float32, whatever students are trained in.
    plain = recipe.updated({"precision": "float32"})
    scores = trainee.task.test(trainee, trainee.task.loader(data, plain), plain)
    measured = scores.get(f"test_{measure.name}", scores.get("test_top1"))  # no teacher generates images
    part = f", its {found.part}" if found.part else ""
    if measured is None:
        print(f"teacher {teacher}: from {found.url}{part}", flush=True)
    else:
        verify(teacher, measured, source, found)
        published = "nothing" if source.accuracy is None else f"{source.accuracy:.2f} %"
        scored = f"{measured:.2f} % measured, {published} published"
        print(f"teacher {teacher}: {scored}, from {found.url}{part}", flush=True)
    carried = {key: values[key] for key in ("preprocessing", "licence") if key in values}
    return {"fetched": asdict(found) | scores | {"published_top1": source.accuracy} | carried}
