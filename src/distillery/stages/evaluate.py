"""Stage `evaluate`: everything that is measured about the students of one job, on the test set."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from distillery import models
from distillery.data.dataset import Dataset
from distillery.evaluation import conventions
from distillery.evaluation.accuracy import accuracy
from distillery.evaluation.calibration import calibration
from distillery.evaluation.fidelity import fidelity, logit_scale
from distillery.evaluation.macs import multiply_accumulates
from distillery.evaluation.predict import test_logits
from distillery.models.base import Network
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.records.io import DistilleryError
from distillery.records.schema import RunRecord, read
from distillery.study.blocks import Method, Recipe
from distillery.teachers.verified import open_teachers
from distillery.training.device import dtype_of, set_up
from distillery.training.history import load_history
from distillery.training.trainee import assemble

BULK = ("predictions", "per_class", "curves")  # of one run or teacher: kept as arrays beside the metrics


def run(work: Work) -> None:
    values, reads = work.job.values, work.job.reads
    recipe = Recipe.model_validate(values["recipe"])
    device = set_up(recipe)
    with work.making():
        trained = read(reads["record"], RunRecord)
        data = Dataset.load(reads["arrays"], sha256=work.sha256("arrays")).to(device)
        pair = artifacts.read_json(reads["pair"])["teachers"]
        teachers = open_teachers(values["teachers"], pair, data, device, recipe)
        labels = data.test_labels.cpu()
        outputs = {n: test_logits(t, data, recipe) for n, t in zip(values["teachers"], teachers, strict=True)}
        weights, histories = artifacts.load_tensors(reads["weights"]), load_history(reads["history"])
        runs = []
        for seed in trained.seeds:
            logits = _student_logits(seed, weights, values, data, teachers, recipe)
            runs.append({"seed": seed} | _of_history(histories[str(seed)]) | measure(logits, labels))
            runs[-1]["fidelity"] = {name: fidelity(logits, teacher) for name, teacher in outputs.items()}
        known = artifacts.read_json(reads["teachers"])
        macs = {n: _macs(t, data) for n, t in zip(values["teachers"], teachers, strict=True)}
        measured = {n: _teacher(known[n], logits, data, macs[n]) for n, logits in outputs.items()}
        bulk: dict[str, Any] = {"labels": labels.numpy().astype(np.uint16)}
        for kind, found in (("run", {str(r["seed"]): r for r in runs}), ("teacher", measured)):
            for name, entry in found.items():
                bulk |= taken_out(f"{kind}.{name}", entry)
        artifacts.save_tensors(work.job.outputs["predictions"], bulk)
        work.write(
            architecture=values["student"],
            objective=values["objective"],
            recipe=values["recipe"],
            test_images=len(labels),
            data=data.facts,
            macs=_macs(models.build(values["student"], data.num_classes, data.channels), data),
            cost=_cost(trained),
            teachers=measured,
            runs=runs,
        )


def taken_out(name: str, entry: dict[str, Any]) -> dict[str, np.ndarray]:
    """Take the bulk out of what was measured of one run or teacher; return it as arrays named `name.*`."""
    arrays: dict[str, np.ndarray] = {
        f"{name}.predictions": np.asarray(entry.pop("predictions"), dtype=np.uint16),
        f"{name}.per_class": np.array(entry.pop("per_class"), dtype=np.float64),  # None becomes nan
    }
    for quantity, values in entry.pop("curves").items():
        arrays[f"{name}.curves.{quantity}"] = np.array(values, dtype=np.float64)
    return arrays


def measure(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Everything that (N, C) test logits say by themselves; accuracy under `last`, the epoch the weights are from."""
    scores = accuracy(logits, labels)
    last = {"top1": scores.pop("top1"), "top5": scores.pop("top5")}
    return {"last": last} | scores | calibration(logits, labels) | {"logits": logit_scale(logits)}


def _teacher(known: dict[str, Any], logits: Tensor, data: Dataset, macs: int) -> dict[str, Any]:
    """The same measurements of a teacher, so that a table needs to read nothing but metrics."""
    facts = {k: known[k] for k in ("architecture", "parameters", "trained")} | {"macs": macs}
    return facts | _of_history(known["history"]) | measure(logits, data.test_labels.cpu())


def _macs(network: Network, data: Dataset) -> int:
    weight = next(network.parameters())
    return multiply_accumulates(network, data.normalise(data.test_images[:1].to(weight.device), weight.dtype))


def _student_logits(
    seed: int,
    weights: dict[str, Tensor],
    values: dict[str, Any],
    data: Dataset,
    teachers: list[Network],
    recipe: Recipe,
) -> Tensor:
    """Rebuild one student, with its objective where that predicts in the student's place, and test it."""
    student, objective = (_part(weights, f"{seed}.{name}.") for name in ("student", "objective"))
    if not objective:
        network = models.build(values["student"], data.num_classes, data.channels)
        _fill(network, student, seed)
        return test_logits(network, data, recipe)
    trainee = assemble(values["student"], Method.model_validate(values["objective"]), data, teachers, seed)
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
    chosen = {"test_best": conventions.best(epochs, "test_top1"), "val_best": conventions.best(epochs, "val_top1")}
    return {k: v for k, v in chosen.items() if v} | {"curves": conventions.curves(epochs)}


def _cost(trained: RunRecord) -> dict[str, Any]:
    """What training one student took; the view table's own forwards are counted with the table."""
    live = trained.teacher_outputs.startswith("live")
    return {
        "parameters": trained.parameters,
        "extra_parameters": trained.extra_parameters,
        "epochs": trained.recipe["epochs"],
        "images_seen": trained.images_seen,
        "teacher_outputs": trained.teacher_outputs,
        "teacher_forwards": trained.images_seen * len(trained.teachers) if live else 0,
        "device": trained.device,
        "threads": trained.threads,
    }
