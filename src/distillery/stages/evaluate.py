"""Stage `evaluate`: everything that is measured about the students of one job, on the test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from distillery import models
from distillery.data.dataset import Dataset
from distillery.evaluation import history
from distillery.evaluation.accuracy import accuracy
from distillery.evaluation.calibration import calibration
from distillery.evaluation.cost import multiply_accumulates
from distillery.evaluation.fairness import group_gaps
from distillery.evaluation.fidelity import fidelity, logit_scale
from distillery.evaluation.packing import pack
from distillery.evaluation.predict import test_logits
from distillery.models.base import Network
from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records.io import DistilleryError
from distillery.records.job import describe, making
from distillery.study.model import Method, Recipe, Study
from distillery.teachers.pair import open_teachers
from distillery.training.device import dtype_of, set_up
from distillery.training.trainee import assemble


def run(study: Study, params: Path, pair: str, method: str, seed: str) -> None:
    layout = Layout(study.study)
    students, trained_path = layout.students(pair, method, seed), layout.runs(pair, method, seed)
    inputs = [layout.arrays, layout.data, layout.pair(pair), students, trained_path]
    record = describe("evaluate", inputs, params, pair=pair, method=method, seed=seed)
    trained, described = artifacts.read_json(trained_path), artifacts.read_json(layout.data)
    recipe = _recipe(trained, trained_path)
    device = set_up(recipe)
    output = layout.metrics(pair, method, seed)
    with making(layout, output, output, record):
        data = Dataset.load(layout.arrays.parent, sha256=record["inputs"][str(layout.arrays)]).to(device)
        teachers = open_teachers(study, layout, pair, data, device, recipe)
        names = study.pairs[pair].teachers
        labels = data.test_labels.cpu()
        grouped = "test_groups" in described["sha256"]  # a source with a group attribute: (N,) integers
        groups = artifacts.load_tensors(layout.arrays)["test_groups"] if grouped else None
        outputs = {n: test_logits(t, data, recipe) for n, t in zip(names, teachers, strict=True)}
        weights = artifacts.load_tensors(students)
        runs = []
        for trace in trained["runs"]:
            logits = _student_logits(trace["seed"], weights, trained, data, teachers, recipe)
            runs.append({"seed": trace["seed"]} | _of_history(trace["history"]) | measure(logits, labels, groups))
            runs[-1]["fidelity"] = {name: fidelity(logits, teacher) for name, teacher in outputs.items()}
        facts = {
            "architecture": trained["architecture"],
            "objective": trained["objective"],
            "recipe": trained["recipe"],
            "trained_params_sha256": trained["params_sha256"],
            "test_images": len(labels),
            "labels": pack(labels.numpy()),
            "data": {k: described[k] for k in ("source", "selection", "counts", "class_names")},
            "macs": _macs(trained["architecture"], data),
            "cost": _cost(trained),
            "teachers": {n: _teacher(layout, n, o, data) for n, o in outputs.items()},
            "runs": runs,
        }
        artifacts.write_json(output, record | facts)


def _recipe(trained: dict[str, Any], path: Path) -> Recipe:
    try:
        return Recipe.model_validate(trained["recipe"])
    except ValidationError:
        raise DistilleryError(f"{path} was written by another version of Distillery: train the runs again") from None


def measure(logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> dict[str, Any]:
    """Everything that (N, C) test logits say by themselves; accuracy under `last`, the epoch the weights are from."""
    scores = accuracy(logits, labels)
    last = {"top1": scores.pop("top1"), "top5": scores.pop("top5")}
    found = {"last": last} | scores | calibration(logits, labels) | {"logits": logit_scale(logits)}
    if groups is not None:
        found["groups"] = group_gaps(logits.argmax(1).numpy(), labels.numpy(), groups.numpy(), logits.shape[1])
    return found


def _teacher(layout: Layout, name: str, logits: Tensor, data: Dataset) -> dict[str, Any]:
    """The same measurements of a teacher, so that a table needs to read nothing but metrics."""
    trained = artifacts.read_json(layout.teacher_record(name))
    size = {"parameters": trained["parameters"], "macs": _macs(trained["architecture"], data)}
    origin = {key: trained[key] for key in ("sha256", "seed", "recipe", "fetched", "fallback") if key in trained}
    found = {"architecture": trained["architecture"], "trained": origin} | size
    found |= _of_history(trained.get("history", []))
    return found | measure(logits, data.test_labels.cpu())


def _macs(architecture: str, data: Dataset) -> int:
    network = models.build(architecture, data.num_classes, data.channels)
    return multiply_accumulates(network, data.normalise(data.test_images[:1].cpu()))


def _student_logits(
    seed: int,
    weights: dict[str, Tensor],
    trained: dict[str, Any],
    data: Dataset,
    teachers: list[Network],
    recipe: Recipe,
) -> Tensor:
    """Rebuild one student, with its objective where that predicts in the student's place, and test it."""
    student, objective = (_part(weights, f"{seed}.{name}.") for name in ("student", "objective"))
    if not objective:
        network = models.build(trained["architecture"], data.num_classes, data.channels)
        _fill(network, student, seed)
        return test_logits(network, data, recipe)
    trainee = assemble(trained["architecture"], Method.model_validate(trained["objective"]), data, teachers, seed)
    _fill(trainee.student, student, seed)
    _fill(trainee.objective, objective, seed)
    trainee.objective.to(data.test_images.device, dtype_of(recipe)).eval()
    return test_logits(trainee.student, data, recipe, trainee.objective.predict)


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _fill(module: nn.Module, weights: dict[str, Tensor], seed: int) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DistilleryError(f"the stored weights of seed {seed} do not fit: {reason}; train the run again") from None


def _of_history(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    chosen = {"test_best": history.best(epochs, "test_top1"), "val_best": history.best(epochs, "val_top1")}
    return {k: v for k, v in chosen.items() if v} | {"curves": history.curves(epochs)}


def _cost(trained: dict[str, Any]) -> dict[str, Any]:
    """What training one student took; the view table's own forwards are counted with the table."""
    live = trained["teacher_outputs"].startswith("live")
    return {
        "parameters": trained["parameters"],
        "extra_parameters": trained["extra_parameters"],
        "epochs": trained["recipe"]["epochs"],
        "images_seen": trained["images_seen"],
        "teacher_outputs": trained["teacher_outputs"],
        "teacher_forwards": trained["images_seen"] * len(trained["teachers"]) if live else 0,
        "device": trained["device"],
        "threads": trained["threads"],
    }
