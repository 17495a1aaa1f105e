"""Training of classifiers: what is counted while training and testing, and where teacher outputs come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distillery import models
from distillery.data.dataset import Dataset
from distillery.data.loader import Loader
from distillery.data.photo_set import PhotoSet
from distillery.data.pictured import Pictured, open_pictured
from distillery.errors import DistilleryError
from distillery.evaluation.places import places
from distillery.models.base import Network
from distillery.objectives.build import needs as needs_of
from distillery.pipeline.fingerprint import fingerprint
from distillery.records.environment import environment
from distillery.records.header import Header
from distillery.records.io import sha256_json
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.building import built
from distillery.teachers.replay import Kind, Plan
from distillery.teachers.replayed import Replayed
from distillery.teachers.replayed import decisive as decisive_of
from distillery.teachers.source import LiveTeachers, TableTeachers
from distillery.teachers.view_table import ViewTable
from distillery.teachers.weights import load_network
from distillery.training.parallel import ALONE, Ranks
from distillery.training.task import Training
from distillery.training.teaching import TeacherSource
from distillery.training.testing import additive
from distillery.training.trainee import Trainee

if TYPE_CHECKING:
    from distillery.pipeline.job import Job


class ClassTraining(Training):
    """Networks give logits (B, C); targets are classes (B,), or soft ones (B, C) while images are mixed."""

    unlabelled = False  # whether some samples that are trained on have no label

    def seen(self, prediction: Tensor, targets: Tensor) -> dict[str, Tensor]:
        classes = targets if targets.ndim == 1 else targets.argmax(1)
        hits = {"top1": (prediction.argmax(1) == classes).sum()}
        return hits | {"labelled": (classes >= 0).sum()} if self.unlabelled else hits

    def counted(self, prediction: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits = prediction.float()
        place = places(logits, targets)
        loss = F.cross_entropy(logits, targets, reduction="sum")
        return {"top1": (place == 0).sum(), "top5": (place < 5).sum(), "loss": loss}

    def scores(self, sums: Mapping[str, float], count: int) -> dict[str, float]:
        hits, percent = dict(sums), count / 100
        if self.unlabelled and "labelled" in hits:
            percent = hits.pop("labelled") / 100
        return {name: value / count if name == "loss" else value / percent for name, value in hits.items()}

    def test(self, trainee: Trainee, loader: Loader, recipe: Recipe, ranks: Ranks = ALONE) -> dict[str, float]:
        """Top-1 and top-5 accuracy in percent and cross-entropy in nats."""
        return additive(trainee, loader, recipe, ranks, ("top1", "top5", "loss"))

    def load(self, path: Path, sha256: str, recipe: Recipe, device: torch.device) -> Pictured:
        return open_pictured(path, sha256).hold_out(recipe.validation).to(device)

    def hidden(self, data: Pictured, labelled: float, unlabelled: bool) -> Pictured:
        if not isinstance(data, Dataset):
            raise DistilleryError("data.labelled: the labels of a streamed source cannot be hidden: take arrays")
        self.unlabelled = unlabelled
        return data.hide_labels(labelled, leave_out=not unlabelled)

    def loader(self, data: Pictured, recipe: Recipe) -> Loader:
        return data.loader(recipe)

    def network(self, architecture: str, data: Pictured) -> Network:
        return models.build(architecture, data.num_classes, data.channels)

    def trained(self, architecture: str, data: Pictured, path: Path) -> Network:
        return load_network(architecture, data.num_classes, data.channels, path)

    def assemble(self, student: str, method: Method, data: Pictured, teachers: list[Network], seed: int) -> Trainee:
        return Trainee(*built(student, method, data, teachers, seed), self)

    def teaching(
        self, job: Job, described: Mapping[str, Any], networks: list[Network], recipe: Recipe, data: Pictured
    ) -> tuple[TeacherSource | None, str]:
        """View tables if they hold what the method needs and were made for this augmentation; else live teachers."""
        if not networks:
            return None, "none"
        cached, needs = job.values["cached"], needs_of(Method.model_validate(job.values["objective"]))
        why = next((teacher["live"] for teacher in described.values() if "live" in teacher), None)
        if not isinstance(data, Dataset):
            return self._replayed(job, described, networks, recipe, data, needs, why)
        if needs & {"maps", "preacts", "tokens", "cams"}:
            why = "the method needs feature maps"
        elif "strong" in needs:
            why = "the strong view cannot be enumerated"
        elif "pooled" in needs and not cached["pooled"]:
            why = "the table holds no pooled features (cache.pooled)"
        elif recipe.precision == "float64":
            why = "a view table would round what float64 computes"
        elif not recipe.augmentation.enumerable:
            why = f"what {recipe.augmentation.then[0].name} makes of an image cannot be enumerated"
        elif recipe.augmentation.model_dump() != cached["augmentation"]:
            why = why or "the table was built for another augmentation"
        if why is not None:
            return LiveTeachers(networks, recipe, needs), f"live teacher: {why}"
        tables = []
        for name, teacher in job.values["teachers"].items():
            path = Path(teacher["table"])
            table = ViewTable.open(path, described[name]["table"], job.layout.hash_note(path))
            tables.append(table.place(data.train_images.device))
        precision = cached.get("precision", "float32")
        return TableTeachers(tables), "view table" if precision == "float32" else f"view table in {precision}"

    def _replayed(
        self,
        job: Job,
        described: Mapping[str, Any],
        networks: list[Network],
        recipe: Recipe,
        data: PhotoSet,
        needs: frozenset[str],
        why: str | None,
    ) -> tuple[TeacherSource, str]:
        """Replay tables of streamed images, unless the method needs what they do not hold.

        A table is of the code and the packages that make a teacher's outputs: where these are others it is built anew.
        """
        cached = job.values["cached"]
        if taken := needs & {"maps", "preacts", "tokens", "cams"}:
            why = f"the method needs {' and '.join(sorted(taken))}"
        elif "strong" in needs:
            why = "the strong view is in no table"
        elif "pooled" in needs and not cached["pooled"]:
            why = "the table holds no pooled features (cache.pooled)"
        if why is not None:
            return LiveTeachers(networks, recipe, needs), f"live teacher: {why}"
        exact: Kind = "float64" if recipe.precision == "float64" else "float32"
        kind: Kind = "int16" if cached["dtype"] == "int16" else exact
        decisive = [kind, cached["pooled"], decisive_of(recipe), data.blob_bytes, data.facts]
        decisive += [list(data.mean), list(data.std), data.size]
        seen = {"augmentation": job.values["recipe"]["augmentation"]}
        decisive += [v for k, v in environment(("timm",)).items() if k in ("torch", "torchvision", "timm", "pillow")]
        plans = []
        for name, teacher in job.values["teachers"].items():
            made = {"task": job.values["task"], "architecture": teacher["architecture"], "recipe": seen}
            code = fingerprint("teacher", made)
            key = sha256_json([described[name]["weights"], code, *decisive])
            plans.append(Plan(key, len(data.train), data.num_classes, kind, cached["pooled"]))
        folders = [job.layout.replayed(name) for name in job.values["teachers"]]
        return Replayed(networks, folders, plans, lambda: data.loader(recipe), recipe), "replay table"

    def header(self, data: Pictured, **facts: Any) -> Header:
        return Header.of(data, **facts)

    def beside(self, networks: list[Network], data: Pictured) -> dict[str, Tensor]:
        """The first teacher, and an image."""
        teacher = {f"teacher.{k}": v.cpu() for n in networks[:1] for k, v in n.state_dict().items()}
        return teacher | {"example": data.example().cpu()}


def assemble(student: str, method: Method, data: Pictured, teachers: list[Network], seed: int) -> Trainee:
    """Build what one run trains, for whoever has no study: see `ClassTraining.assemble`."""
    return ClassTraining().assemble(student, method, data, teachers, seed)
