"""Studies whose metrics are computed by the real measurements from logits that are drawn, not trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from conftest import ROOT

from distillery.evaluation.fidelity import fidelity
from distillery.evaluation.packing import pack
from distillery.pipeline.layout import Layout, tracked
from distillery.records import io as artifacts
from distillery.stages.evaluate import measure
from distillery.study.model import Study, expand_seeds

IMAGES, CLASSES = 400, 5


class Synthetic:
    """A folder with a params.yaml and metrics files as the `evaluate` stage writes them."""

    def __init__(self, root: Path, params: dict[str, Any]) -> None:
        self.root, self.params = root, root / "params.yaml"
        (root / "src").symlink_to(ROOT / "src")
        self.write_params(params)
        self.labels = torch.arange(IMAGES) % CLASSES
        self.teacher_accuracy = 90.0

    def write_params(self, params: dict[str, Any]) -> None:
        self.content = params
        self.params.write_text(yaml.safe_dump(params, sort_keys=False))

    @property
    def study(self) -> Study:
        return Study.load(self.params)

    def logits(self, accuracy: float, seed: int) -> torch.Tensor:
        """Logits that are right on exactly `accuracy` percent of the images (those that `seed` picks)."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(IMAGES, CLASSES, generator=generator)
        right = torch.randperm(IMAGES, generator=generator) < round(accuracy * IMAGES / 100)
        predicted = torch.where(right, self.labels, (self.labels + 1) % CLASSES)
        return noise + 4 * F.one_hot(predicted, CLASSES)

    def cell(self, pair: str, method: str, block: str, accuracies: list[float], **facts: Any) -> None:
        """Write the metrics of one job whose runs end with the given accuracies."""
        study, seeds = self.study, expand_seeds(block)
        teacher = self.logits(self.teacher_accuracy, 0)
        recipe = study.recipe_for(pair, method).model_dump(mode="json")
        runs = []
        for seed, accuracy in zip(seeds, accuracies, strict=True):
            logits = self.logits(accuracy, seed)
            found = {"seed": seed} | measure(logits, self.labels)
            found["test_best"] = {"epoch": 3, "top1": found["last"]["top1"] + 0.25, "top5": 100.0}
            found["curves"] = {"epoch": [1, 2, 3], "test_top1": [accuracy / 2, None, accuracy], "loss": [2.0, 1.0, 0.5]}
            found["fidelity"] = {name: fidelity(logits, teacher) for name in study.pairs[pair].teachers}
            runs.append(found)
        raw = json.loads(
            tracked("distill", yaml.safe_load(self.params.read_text()), pair=pair, method=method, seed=block)
        )
        cost = {
            "parameters": 5000,
            "extra_parameters": 0,
            "epochs": recipe["epochs"],
            "images_seen": 1000 * recipe["epochs"],
        }
        cost |= {"teacher_outputs": "view table", "teacher_forwards": 0, "device": "cpu", "threads": 1}
        size = {"parameters": 70000, "macs": 9000, "test_best": {"epoch": 2, "top1": self.teacher_accuracy + 0.5}}
        record = {
            "stage": "evaluate",
            **{"pair": pair, "method": method, "seed": block, "architecture": study.pairs[pair].student},
            "objective": study.methods[method].for_pair(pair).model_dump(mode="json"),
            "recipe": recipe,
            "params_sha256": artifacts.sha256_json({}),
            "code_sha256": artifacts.sha256_tree([ROOT / "src" / "distillery" / "evaluation"]),
            "inputs": {str(self.params.name): artifacts.sha256_file(self.params)},
            "environment": artifacts.environment(),
            "trained_params_sha256": artifacts.sha256_json(raw),
            "test_images": IMAGES,
            "labels": pack(self.labels.numpy()),
            "data": {
                "source": study.data.source,
                "class_names": [str(i) for i in range(CLASSES)],
                "counts": {"train": 50_000, "test": 10_000},
            },
            "macs": 1000,
            "cost": cost,
            "teachers": {
                name: {"architecture": study.teachers[name].architecture} | size | measure(teacher, self.labels)
                for name in study.pairs[pair].teachers
            },
            "runs": runs,
        }
        artifacts.write_json(self.root / Layout(study.study).metrics(pair, method, block), record | facts)


def params(**changes: Any) -> dict[str, Any]:
    """A study of digits with one pair, three methods, three seeds and 30 epochs, changed at the top level."""
    content = yaml.safe_load((ROOT / "workflow" / "studies" / "digits.yaml").read_text())
    content["recipe"] |= {"epochs": 30}
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
