"""Stage `teacher`: a teacher's weights, trained here by the recipe or fetched, with its accuracy and history."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distillery.data.dataset import Dataset
from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records.job import describe, making
from distillery.study.model import Method, Study
from distillery.teachers.fetch import NoMirror, fetch, verify
from distillery.teachers.released import source_of
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import set_up
from distillery.training.loop import fit, test
from distillery.training.parallel import Ranks
from distillery.training.progress import Progress
from distillery.training.trainee import Trainee, assemble


def run(study: Study, params: Path, teacher: str) -> None:
    layout, spec = Layout(study.study), study.teachers[teacher]
    recipe = study.recipe_for_teacher(teacher)
    record = describe("teacher", [layout.arrays, layout.data], params, teacher=teacher)
    ranks = Ranks.launched()
    device = set_up(recipe, ranks if spec.source == "train" else None)  # one process fetches
    output = layout.teacher(teacher)
    made_by = layout.teacher_record(teacher) if ranks.size == 1 else None  # the others would wait for the first
    with ranks.once(making(layout, output, made_by, record)) as volatile, ranks.joined(device):
        data = Dataset.load(layout.arrays.parent, sha256=record["inputs"][str(layout.arrays)])
        data = data.hold_out(recipe.validation).to(device)
        trainee = assemble(spec.architecture, Method(objective="ce"), data, [], spec.seed)
        network = trainee.student
        key = artifacts.sha256_json(record | {"seed": spec.seed, "ranks": ranks.size})
        checkpoint = Checkpoint(layout.checkpoint("teachers", teacher), key)
        made = _fetch(study, teacher, trainee, data, volatile) if spec.source == "fetch" else {}
        if "fetched" not in made:
            with ranks.once(Progress(f"teacher {teacher}", volatile)) as progress:
                history = fit(trainee, data, None, recipe, spec.seed, checkpoint, progress, ranks)
            made |= {"seed": spec.seed, "recipe": recipe.model_dump(mode="json"), "history": history}
            made["ranks"] = ranks.size
        if not ranks.first:
            return
        artifacts.save_tensors(output, {k: v.cpu() for k, v in network.state_dict().items()})
        facts = {
            "architecture": spec.architecture,
            "sha256": artifacts.sha256_file(output),
            "parameters": sum(p.numel() for p in network.parameters()),
        }
        artifacts.write_json(layout.teacher_record(teacher), record | facts | made)
        checkpoint.discard()


def _fetch(
    study: Study, teacher: str, trainee: Trainee, data: Dataset, volatile: dict[str, Any] | None
) -> dict[str, Any]:
    """Fill the student of `trainee` with released weights, and say where they are from and how good they were found.

    If no mirror helps and the study wants the teacher trained then, the network is left alone and only that is said.
    """
    source = source_of(study.teachers[teacher], study.data)
    try:
        with Progress(f"fetch {teacher}") as progress:

            def megabytes(done: int, total: int | None) -> None:
                if total:  # a server that does not say how much is to come gets no bar
                    progress.show(math.ceil(done / 1e6), math.ceil(total / 1e6), "MB", "")

            found = fetch(teacher, trainee.student, source, megabytes)
    except NoMirror as error:
        if study.teachers[teacher].fallback != "train":
            raise
        print(f"teacher {teacher} is trained here, because every mirror failed: {error.listed}", flush=True)
        if volatile is not None:
            volatile["mirrors"] = error.failures  # not in the record: which way a host is dead differs from day to day
        return {"fallback": "trained here, because every mirror failed", "mirrors": list(error.failures)}
    trainee.student.to(data.test_images.device)
    recipe = study.recipe_for_teacher(teacher).updated({"precision": "float32"})  # whatever students are trained in
    scores = test(trainee, data, recipe)
    verify(teacher, scores["test_top1"], source, found)
    published = "nothing" if source.accuracy is None else f"{source.accuracy:.2f} %"
    measured = scores["test_top1"]
    part = f", its {found.part}" if found.part else ""
    print(f"teacher {teacher}: {measured:.2f} % measured, {published} published, from {found.url}{part}", flush=True)
    return {"fetched": asdict(found) | scores | {"published_top1": source.accuracy}}
