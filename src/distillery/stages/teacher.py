"""Stage `teacher`: a teacher's weights, trained here by the recipe or fetched, with its accuracy and history."""

from __future__ import annotations

from pathlib import Path

import torch

from distillery import artifacts, models
from distillery.data.dataset import Dataset
from distillery.layout import Layout
from distillery.objectives.base import Context
from distillery.objectives.ce import CE
from distillery.stages.record import describe, making
from distillery.study import Study
from distillery.training.checkpoint import Checkpoint
from distillery.training.device import seeded, set_up
from distillery.training.loop import Trainee, fit
from distillery.training.progress import Progress


def run(study: Study, params: Path, teacher: str) -> None:
    layout, spec = Layout(study.study), study.teachers[teacher]
    recipe = study.recipe_for_teacher(teacher)
    record = describe("teacher", [layout.arrays, layout.data], params, teacher=teacher)
    device = set_up(recipe)
    output = layout.teacher(teacher)
    with making(layout, output) as volatile:
        data = Dataset.load(layout.arrays.parent).hold_out(recipe.validation).to(device)
        with seeded(spec.seed, "init"):
            network = models.build(spec.architecture, data.num_classes, data.channels)
        with torch.no_grad():
            context = Context(
                data.num_classes, data.train_labels, network.eval()(data.normalise(data.test_images[:1]).cpu())
            )
        trainee = Trainee(network, CE(context))
        key = artifacts.sha256_json(record | {"seed": spec.seed})
        checkpoint = Checkpoint(layout.checkpoint("teachers", teacher), key)
        with Progress(f"teacher {teacher}", volatile) as progress:
            history = fit(trainee, data, None, recipe, spec.seed, checkpoint, progress)
        artifacts.save_tensors(output, {k: v.cpu() for k, v in network.state_dict().items()})
        facts = {
            "architecture": spec.architecture,
            "seed": spec.seed,
            "recipe": recipe.model_dump(mode="json"),
            "sha256": artifacts.sha256_file(output),
            "parameters": sum(p.numel() for p in network.parameters()),
            "history": history,
        }
        artifacts.write_json(layout.teacher_record(teacher), record | facts)
        checkpoint.discard()
