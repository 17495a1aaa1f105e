"""Studies that were never trained: metrics of the real measurements from logits that are drawn, records of every stage.

The files that nobody here reads (arrays, weights, view tables) hold their own names. The records are true: made by the
stages' own code from the real plan, so that the judge finds them current.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import small_study
import torch
import torch.nn.functional as F
import yaml

from distillery.evaluation.fidelity import fidelity
from distillery.pipeline import check
from distillery.pipeline.current import Judge
from distillery.pipeline.job import Job, Plan
from distillery.pipeline.planner import resolve
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.report import results
from distillery.stages import tables
from distillery.stages.evaluate import taken_out
from distillery.study.model import Study, expand_seeds
from distillery.tasks.classification.evaluation import ClassEvaluation, measured

IMAGES, CLASSES = 400, 5


class Synthetic:
    """The current folder, with a params.yaml and the artefacts of the jobs that were asked for."""

    def __init__(self, root: Path, params: dict[str, Any]) -> None:
        assert root == Path.cwd(), "paths of a study are relative to the folder that one works in"
        self.params = root / "params.yaml"
        self.write_params(params)
        self.labels = torch.arange(IMAGES) % CLASSES
        self.teacher_accuracy = 90.0

    def write_params(self, params: dict[str, Any]) -> None:
        self.content = params
        self.params.write_text(yaml.safe_dump(params, sort_keys=False))
        self.study: Study = check.load(self.params)
        self.plan: Plan = resolve(self.study)
        self.plan.write()
        self._made: dict[Path, bool] = {}  # by record: whether its job is known to be current

    @property
    def results(self) -> results.Results:
        return results.load(self.study, Judge(self.plan))

    def tables(self) -> None:
        """Run the last stage."""
        tables.run(Work(self.plan.job("tables"), self.plan.settings))

    def logits(self, accuracy: float, seed: int) -> torch.Tensor:
        """Logits that are right on exactly `accuracy` percent of the images (those that `seed` picks)."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(IMAGES, CLASSES, generator=generator)
        right = torch.randperm(IMAGES, generator=generator) < round(accuracy * IMAGES / 100)
        predicted = torch.where(right, self.labels, (self.labels + 1) % CLASSES)
        return noise + 4 * F.one_hot(predicted, CLASSES)

    def cell(self, pair: str, method: str, block: str, accuracies: list[float], **facts: Any) -> Job:
        """Make one evaluation whose runs end with the given accuracies, and all that it needs; `facts` replace its."""
        seeds = expand_seeds(block)
        teacher = self.logits(self.teacher_accuracy, 0)
        runs = []
        for seed, accuracy in zip(seeds, accuracies, strict=True):
            logits = self.logits(accuracy, seed)
            found = {"seed": seed} | measured(logits, self.labels)
            found["test_best"] = {"epoch": 3, "top1": found["last"]["top1"] + 0.25, "top5": 100.0}
            found["curves"] = {"epoch": [1, 2, 3], "test_top1": [accuracy / 2, None, accuracy], "loss": [2.0, 1.0, 0.5]}
            found["fidelity"] = {name: fidelity(logits, teacher) for name in self.study.pairs[pair].teachers}
            runs.append(found)
        size = {"parameters": 70000, "macs": 9000, "test_best": {"epoch": 2, "top1": self.teacher_accuracy + 0.5}}
        teachers = {
            name: {
                "architecture": self.study.teachers[name].architecture,
                "trained": {"seed": 0, "sha256": f"{self.teacher_accuracy}"},
                "curves": {},
            }
            | size
            | measured(teacher, self.labels)
            for name in self.study.pairs[pair].teachers
        }
        bulk: dict[str, Any] = {"labels": self.labels.numpy().astype(np.uint16)}
        for run in runs:
            bulk |= taken_out(f"run.{run['seed']}", run, ClassEvaluation.bulk)
        for name, entry in teachers.items():
            bulk |= taken_out(f"teacher.{name}", entry, ClassEvaluation.bulk)
        return self.evaluation(pair, method, block, bulk, {"runs": runs, "teachers": teachers} | facts)

    def evaluation(self, pair: str, method: str, block: str, bulk: dict[str, Any], facts: dict[str, Any]) -> Job:
        """Write the metrics of one job, after all that it needs."""
        job = self.plan.job("evaluate", pair=pair, method=method, seed=block)
        self._needed(job)
        values = job.values
        cost = {"parameters": 5000, "extra_parameters": 0, "epochs": values["recipe"]["epochs"]}
        cost |= {"images_seen": 1000 * values["recipe"]["epochs"], "device": "cpu", "threads": 1}
        cost |= {"teacher_outputs": "view table", "teacher_forwards": 0}
        measured = {
            "architecture": values["student"],
            "objective": values["objective"],
            "recipe": values["recipe"],
            "test_images": IMAGES,
            "data": {
                "source": self.study.data.source,
                "class_names": [str(i) for i in range(CLASSES)],
                "counts": {"train": 50_000, "test": 10_000},
            },
            "macs": 1000,
            "cost": cost,
        }
        artifacts.save_tensors(job.outputs["predictions"], bulk)
        Work(job, self.plan.settings).write(**measured | facts)
        return job

    def _needed(self, job: Job) -> None:
        for earlier in self.plan.needs(job):
            if earlier.record not in self._made:
                self._made[earlier.record] = True
                self._needed(earlier)
                if not Judge(self.plan).verdict(earlier).current:
                    self._make(earlier)

    def _make(self, job: Job) -> None:
        """Make the outputs of a job before `evaluate`, and their record."""
        for name, path in job.outputs.items():
            if name != "record":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{name} of {job.name}, spec {job.sha256}")
        work = Work(job, self.plan.settings)
        work.write(**_facts(job, work))


def _facts(job: Job, work: Work) -> dict[str, Any]:
    """What the record of a job says besides what all records say."""
    values = job.values
    match job.stage:
        case "data":
            shape = {"shape": [8, 8, 1], "num_classes": CLASSES, "class_names": [str(i) for i in range(CLASSES)]}
            pixels = {"scale": 16.0, "mean": [0.3], "std": [0.4], "sha256_of": {}, "content": "0" * 64}
            counts = {"train": 50_000, "test": 10_000}
            return {"source": values["source"], "selection": {}, "counts": counts} | shape | pixels
        case "teacher":
            return {"architecture": values["architecture"], "parameters": 70_000, "seed": values["seed"]}
        case "cache":
            return {"teacher_sha256": work.sha256("weights"), "bytes": 1_000}
        case "distill":
            made = {"architecture": values["student"], "teachers": list(values["teachers"]), "seeds": list(job.seeds)}
            made |= {key: values[key] for key in ("objective", "recipe")} | {"teacher_outputs": "view table"}
            size = {"parameters": 5_000, "extra_parameters": 0, "images_seen": 1_000}
            return made | size | {"device": "cpu", "threads": 1, "ranks": 1}
    return {}


def params(**changes: Any) -> dict[str, Any]:
    """A study of digits with one pair, three methods, three seeds and 30 epochs, changed at the top level."""
    content = small_study.digits()
    content["data"]["test_fraction"] = 0.5
    content["recipe"] |= {"epochs": 30, "milestones": [12, 16, 18], "test_every": 1}
    content["teachers"] = {"resnet20_w8": {"architecture": "resnet20_w8"}}
    content["pairs"] = {"a-b": {"teacher": "resnet20_w8", "student": "resnet8_w2"}}
    content["methods"] = {
        "kd": {"objective": "kd", "label": "KD"},
        "ce": {"objective": "ce", "label": "student alone"},
        "kd_10": {"objective": "kd", "label": "KD_10 & more", "temperature": 10.0},
    }
    content["seeds"] = ["0-2"]
    content["tables"] = {"convention": "last", "baseline": "kd"}
    return content | changes
