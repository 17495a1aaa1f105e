"""Stage `evaluate`: everything that is measured about the students of one job, on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from torch import Tensor, nn

from distillery.data.precision import dtype_of
from distillery.evaluation import conventions
from distillery.evaluation.task import Evaluation
from distillery.models.base import Network
from distillery.models.filling import fill
from distillery.objectives.build import Loss, main_alone, of_main
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.records.io import DistilleryError
from distillery.records.schema import RunRecord, read
from distillery.study.blocks import Method, Recipe
from distillery.task import task_of
from distillery.teachers.verified import open_teachers
from distillery.training.device import set_up
from distillery.training.history import load_history
from distillery.training.task import Training


def run(work: Work) -> None:
    values, reads, task = work.job.values, work.job.reads, task_of(work.job.values["task"])
    training, evaluation = task.part("training")(task), task.part("evaluation")(task)
    recipe = Recipe.model_validate(values["recipe"])
    device = set_up(recipe)
    work.on(device)
    with work.making():
        trained = read(reads["record"], RunRecord)
        data = training.load(reads["arrays"], work.sha256("arrays"), recipe.updated({"validation": 0.0}), device)
        pair = artifacts.read_json(reads["pair"])["teachers"]
        teachers = open_teachers(training, values["teachers"], pair, data, device, recipe)
        # In bfloat16 a teacher is not quite the one that was published (resnet56 on a GPU: 72.5 for 72.6 %).
        full = recipe.updated({"precision": "float32"}) if recipe.precision == "bfloat16" else recipe
        outputs = {n: evaluation.outputs(t, data, full) for n, t in zip(values["teachers"], teachers, strict=True)}
        for name, said in outputs.items():
            _see(evaluation, said, f"teacher {name}")
        weights, histories = artifacts.load_tensors(reads["weights"]), load_history(reads["history"])
        seen = data
        if any(".objective." in key for key in weights):
            seen = _seen(work, trained.spec["values"], training, data, recipe, device)
        runs = []
        for seed in trained.seeds:
            found = _student(seed, weights, values, data, seen, teachers, recipe, training, evaluation)
            _see(evaluation, found, f"the student of seed {seed}")
            chosen = _of_history(histories[str(seed)], task.main.name, task.main.higher_is_better)
            runs.append({"seed": seed} | chosen | evaluation.measure(found, data))
            runs[-1]["fidelity"] = {name: evaluation.compare(found, teacher) for name, teacher in outputs.items()}
        known = artifacts.read_json(reads["teachers"])
        measured = {}
        for (name, found), network in zip(outputs.items(), teachers, strict=True):
            facts = {k: known[name][k] for k in ("architecture", "parameters", "trained")}
            facts["macs"] = evaluation.multiply_accumulates(network, data)
            chosen = _of_history(known[name]["history"], task.main.name, task.main.higher_is_better)
            measured[name] = facts | chosen | evaluation.measure(found, data)
        bulk: dict[str, Any] = {**evaluation.truth(data)}
        for kind, entries in (("run", {str(r["seed"]): r for r in runs}), ("teacher", measured)):
            for name, entry in entries.items():
                bulk |= taken_out(f"{kind}.{name}", entry, evaluation.bulk)
        artifacts.save_tensors(work.job.outputs["predictions"], bulk)
        work.write(
            architecture=values["student"],
            objective=values["objective"],
            recipe=values["recipe"],
            macs=evaluation.multiply_accumulates(training.network(values["student"], data), data),
            cost=_cost(trained, evaluation.images_each),
            teachers=measured,
            runs=runs,
            **evaluation.facts(data),
        )


def _see(evaluation: Evaluation, outputs: Any, whose: str) -> None:
    """Raise DistilleryError for outputs whose measures would say nothing."""
    if not evaluation.measurable(outputs):
        raise DistilleryError(
            f"{whose} gives NaN or infinity for test samples: its training diverged, so lower `recipe.lr` or the "
            "method's weights and train it anew (a fetched one: take other weights)"
        )


def taken_out(name: str, entry: dict[str, Any], bulk: Mapping[str, DTypeLike]) -> dict[str, np.ndarray]:
    """Take the bulk out of what was measured of one run or teacher; return it as arrays named `name.*`."""
    # None becomes nan
    arrays: dict[str, np.ndarray] = {f"{name}.{key}": np.array(entry.pop(key), dtype=bulk[key]) for key in bulk}
    for quantity, values in entry.pop("curves").items():
        arrays[f"{name}.curves.{quantity}"] = np.array(values, dtype=np.float64)
    return arrays


def _seen(work: Work, told: dict[str, Any], training: Training, data: Any, recipe: Recipe, device: Any) -> Any:
    """The data as the students were trained on them, of whose images an objective may hold something for each.

    `told`: what the training was told, as its record says.
    """
    if recipe.validation:
        data = training.load(work.job.reads["arrays"], work.sha256("arrays"), recipe, device)
    if "labelled" in told:
        data = training.hidden(data, told["labelled"], Loss(Method.model_validate(told["objective"])).unlabelled)
    return data


def _student(
    seed: int,
    weights: dict[str, Tensor],
    values: dict[str, Any],
    data: Any,
    seen: Any,
    teachers: list[Network],
    recipe: Recipe,
    training: Training,
    evaluation: Evaluation,
) -> Any:
    """The outputs of one student, rebuilt with its objective where that predicts in the student's place."""
    student, objective = (artifacts.below(weights, f"{seed}.{name}.") for name in ("student", "objective"))
    if not objective:
        network = training.network(values["student"], data)
        _fill(network, student, seed)
        return evaluation.outputs(network, data, recipe)
    main = Method.model_validate(main_alone(values["objective"]))
    trainee = training.assemble(values["student"], main, seen, teachers, seed)
    _fill(trainee.student, student, seed)
    _fill(trainee.objective, of_main(objective, values["objective"]), seed)
    trainee.objective.to(training.loader(data, recipe).device, dtype_of(recipe)).eval()
    return evaluation.outputs(trainee.student, data, recipe, trainee.objective.predict)


def _fill(module: nn.Module, weights: dict[str, Tensor], seed: int) -> None:
    fill(module, weights, f"the stored weights of seed {seed}", "do not fit", "; train the run again")


def _of_history(epochs: list[dict[str, Any]], measure: str, higher: bool) -> dict[str, Any]:
    chosen = {f"{split}_best": conventions.best(epochs, split, measure, higher) for split in ("test", "val")}
    return {k: v for k, v in chosen.items() if v} | {"curves": conventions.curves(epochs)}


def _cost(trained: RunRecord, images_each: int) -> dict[str, Any]:
    """What training one student took; the view table's own forwards are counted with the table."""
    live = trained.teacher_outputs.startswith("live")
    return {
        "parameters": trained.parameters,
        "extra_parameters": trained.extra_parameters,
        "epochs": trained.recipe["epochs"],
        "images_seen": trained.images_seen,
        "teacher_outputs": trained.teacher_outputs,
        "teacher_forwards": trained.images_seen * images_each * len(trained.teachers) if live else 0,
        "device": trained.device,
        "hardware": trained.environment.get("cuda_device") or trained.environment["cpu"],
        "threads": trained.threads,
        **({"images_each": images_each} if images_each != 1 else {}),
    }
