"""Stage `teacher`: a teacher's weights, trained here by the recipe, fetched, or a student of another study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distillery import models
from distillery.data.dataset import Dataset
from distillery.data.loader import Loader
from distillery.models.seeing import Seeing, see
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.records.preprocessing import Preprocessing
from distillery.study.blocks import Method, Recipe
from distillery.task import TOP1, Measure, task_of
from distillery.teachers import gate, repository
from distillery.teachers.fetch import Fetched, NoMirror, configuration, fetch
from distillery.teachers.released import Source
from distillery.teachers.student import serves
from distillery.training.checkpoint import Checkpoint
from distillery.training.compiled import share_cache
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
    work.on(device)
    with ranks.once(work.making(ranks.size == 1)) as volatile, ranks.joined(device):
        data = training.load(work.job.reads["arrays"], work.sha256("arrays"), recipe, device)
        if "labelled" in values:
            data = training.hidden(data, values["labelled"], False)
        loader = training.loader(data, recipe)
        trainee = training.assemble(values["architecture"], Method(objective=task.plain), data, [], values["seed"])
        checkpoint = Checkpoint(
            work.job.checkpoints[0], artifacts.sha256_json([work.identity, values["seed"], ranks.size])
        )
        made: dict[str, Any] = {}
        history: list[dict[str, Any]] = []
        if values["source"] != "train":
            made = _fetch(_source(work, data), work, trainee, loader, data, recipe)
        if "fetched" not in made:
            if recipe.compile:
                share_cache(work.job.layout.compiled)
            with ranks.once(Progress(f"teacher {name}", volatile)) as progress:
                if trainee.parameters():  # else a formula (models/bayes.py), which is as it should be
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
        whole = values.get("whole")
        return Source(tuple(values["urls"]), values["member"], values["sha256"], values["accuracy"], whole=whole)
    path = Path(work.settings["students"][name])
    serves(name, path, values["seed"], values["architecture"], data)
    return Source((str(path),), f"{values['seed']}.student", None, None)


def _fetch(source: Source, work: Work, trainee: Trainee, loader: Loader, data: Any, recipe: Recipe) -> dict[str, Any]:
    """Fill the student of `trainee` with released weights, and say where they are from and how good they were found.

    If no mirror helps and the study wants the teacher trained then, the network is left alone and only that is said.
    """
    values, teacher, task = work.job.values, work.job.keys[0], trainee.task
    tested, rows = data, None
    if values.get("classes") == "imagenet":
        rows = gate.places_of(data.class_names, gate.imagenet_classes())
        tested = gate.renumbered(data, gate.imagenet_classes())
        method = Method(objective=task_of(values["task"]).plain)
        wide = task.assemble(values["architecture"], method, tested, [], values["seed"])
    else:
        wide = trainee
    try:
        found = _found(teacher, wide, source)
    except NoMirror as error:
        if values.get("fallback") != "train":
            raise
        print(f"teacher {teacher} is trained here, because every mirror failed: {error.listed}", flush=True)
        work.volatile["mirrors"] = error.failures  # not in the record: which way a host is dead differs from day to day
        return {"fallback": "trained here, because every mirror failed", "mirrors": list(error.failures)}
    own = _saw(work, tested.class_names)
    plain = recipe.updated({"precision": "float32"})  # whatever students are trained in
    cut = gate.as_it_sees(tested, own)
    judged = None
    if cut is not data:
        if own and cut is tested:  # arrays: they cannot be cut anew
            wide.student = see(wide.student, own, data.mean, data.std)
        wide.student.to(loader.device)
        anew = task.loader(cut, plain)
        judged = _judged(work, task.test(wide, anew, plain), anew, source, found)
        _close(anew)
    if rows is not None:
        # Not the trainee's: the data may have all classes, in another order.
        like = models.build(values["architecture"], 2, data.channels).state_dict()
        trainee.student.load_state_dict(gate.narrowed(wide.student.state_dict(), like, rows))
    if own:
        trainee.student = see(trainee.student, own, data.mean, data.std)
    trainee.student.to(loader.device)
    taught = task.loader(data, plain)
    scores = task.test(trainee, taught, plain)
    _close(taught)
    said, measure = judged or _judged(work, scores, taught, source, found)
    part = f", its {found.part}" if found.part else ""
    print(f"teacher {teacher}: {gate.in_words(said, measure)}, from {found.url}{part}", flush=True)
    if own and own.size:
        print(f"teacher {teacher} is shown images of {own.size} pixels: `preprocessing` would say another size")
    chance = 100 / len(data.class_names) if measure is TOP1 else -1.0
    if said.get(TOP1.name, 0.0) <= chance:
        order = ", ".join(data.class_names[:3])
        print(f"teacher {teacher} is no better than chance: are its classes the data's, in this order ({order}, ...)?")
    carried: dict[str, Any] = {key: values[key] for key in ("licence", "classes") if key in values}
    if own:
        carried["preprocessing"] = own.model_dump(mode="json", exclude_none=True)
    published = {f"published_{(measure or TOP1).name}": source.accuracy}
    return {"fetched": asdict(found) | scores | published | {"gate": said} | carried}


def _saw(work: Work, class_names: Sequence[str]) -> Preprocessing | None:
    """What the weights saw: as they say themselves, or else the plan; None: what the data show.

    Raises DistilleryError if they have the classes of the data in another order.
    """
    values, teacher = work.job.values, work.job.keys[0]
    planned = Preprocessing.model_validate(values["preprocessing"]) if values.get("preprocessing") else None
    if not (place := values.get("config")):
        return planned
    if not (said := configuration(place)):
        print(f"teacher {teacher}: no {place} of timm's: it sees what {values['architecture']} usually does")
        return planned
    repository.refuse_another_order(teacher, said.labels, class_names)
    return said.preprocessing


def _found(teacher: str, trainee: Trainee, source: Source) -> Fetched:
    """Fill the student of `trainee`."""
    with Progress(f"fetch {teacher}") as progress:

        def megabytes(done: int, total: int | None) -> None:
            if total:  # a server that does not say how much is to come gets no bar
                progress.show(math.ceil(done / 1e6), math.ceil(total / 1e6), "MB", "")

        return fetch(teacher, trainee.student, source, megabytes)


def _judged(
    work: Work, scores: dict[str, float], loader: Loader, source: Source, found: Fetched
) -> tuple[dict[str, Any], Measure | None]:
    """What the gate says about a teacher's scores, and by which measure; by none where it does not do the task."""
    measure = gate.measure_of(scores, task_of(work.job.values["task"]).measures)
    if measure is None:
        return {"verdict": gate.UNTESTED}, None
    images, measured = loader.splits()["test"].count, scores[f"test_{measure.name}"]
    return gate.judge(work.job.keys[0], found.url, measure, measured, images, source), measure


def _close(loader: Loader) -> None:
    """End the processes of a loader of streamed images."""
    if close := getattr(loader, "close", None):
        close()
