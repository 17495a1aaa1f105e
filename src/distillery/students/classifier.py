"""Trained networks as plain modules: raw images in, logits out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillery import models
from distillery.data.views import gain_and_offset
from distillery.errors import DistilleryError
from distillery.models.base import Network, anchor
from distillery.models.filling import fill
from distillery.models.seeing import see
from distillery.objectives.base import Context, Objective
from distillery.objectives.build import build, main_alone, of_main
from distillery.records.header import Header
from distillery.records.io import below, load_tensors
from distillery.study.blocks import Method

_BRIGHTEST = 2.0  # resizing overshoots a little; levels of grey do by far
FILES = ("model.safetensors", "students.safetensors")  # what a folder is looked through for


class Classifier(nn.Module):
    """A trained network that takes images as the data has them, and normalises by itself.

    Attributes:
        network: the network inside, which takes normalised images and gives `Outputs` (features and maps, too).
        objective, teacher, example: what else predicts (SimKD's projector and teacher), and the image from which it is
            rebuilt; None for other methods.
        metadata: what the file says about itself: study, method, recipe, classes, normalisation, ...
    """

    gain: Tensor
    gain_of_bytes: Tensor
    offset: Tensor

    def __init__(
        self,
        network: Network,
        header: Header,
        objective: Objective | None = None,
        teacher: Network | None = None,
        example: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network, self.objective, self.teacher = network, objective, teacher
        self.metadata, self.example = header, example
        dtype = anchor(network).dtype
        unit, offset = gain_and_offset(header.mean, header.std, 1.0, dtype)
        for name, tensor in {
            "gain": unit,
            "gain_of_bytes": gain_and_offset(header.mean, header.std, header.scale, dtype)[0],
            "offset": offset,
        }.items():
            self.register_buffer(name, tensor, persistent=False)
        self.requires_grad_(False).eval()

    @property
    def architecture(self) -> str:
        """The network's name."""
        return self.metadata.architecture

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every logit."""
        return self.metadata.class_names

    def normalise(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) images, uint8 as the data has them or float in [0, 1], to what the network takes.

        Raises DistilleryError for another shape or type, on a CPU also for floats that are far beyond 1.
        """
        channels = self.metadata.image[0]
        if images.ndim != 4 or images.shape[1] != channels:
            shape = " x ".join(map(str, images.shape))
            raise DistilleryError(f"images are a tensor of batch x {channels} x height x width, not {shape}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise DistilleryError(f"images are uint8, or float in [0, 1], not {images.dtype}")
        looked_at = images.is_floating_point() and images.device.type == "cpu" and not torch.compiler.is_compiling()
        if looked_at and images.numel() and (most := float(images.max())) > _BRIGHTEST:
            raise DistilleryError(
                f"images are uint8, or float in [0, 1], and these reach {most:g}: divide by {self.metadata.scale:g}"
            )
        gain = self.gain_of_bytes if images.dtype == torch.uint8 else self.gain
        return images.to(gain.dtype) * gain + self.offset

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) images, uint8 or float in [0, 1], to (B, classes) float32 logits."""
        with self._precision(images.device):
            outputs = self.network(self.normalise(images))
            logits = outputs.logits if self.objective is None else self.objective.predict(outputs)
        return logits.float()

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """A bfloat16 student is used as it was trained and measured; an exported program computes in float32."""
        if self.metadata.recipe.get("precision") == "bfloat16" and not torch.compiler.is_exporting():
            return torch.autocast(device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


class Student(Classifier):
    """A trained student (see `Classifier`). `seed` says which of its cell."""

    @property
    def seed(self) -> int:
        return self.metadata.seeds[0]


class Teacher(Classifier):
    """A trained or fetched teacher (see `Classifier`)."""


def load_student(path: str | Path, seed: int | None = None) -> Student:
    """Load a trained student, ready to classify.

    A network or objective of the author's own (`path/to/file.py:Class`) is imported from there, and so is run.

    Args:
        path: a `students.safetensors` of a run, or the folder around one, or a folder that `distillery export` wrote.
        seed: which student, if the file holds several.

    Raises:
        DistilleryError: if the file is missing or damaged or says nothing about itself, if it holds several students
            and no seed is given, or not that seed; if it holds networks of a task that are no classifiers, saying
            what opens them.
    """
    file = weights_file(Path(path))
    header = Header.read(file)
    if header.kind == "teacher":
        raise DistilleryError(f"{file} holds a teacher: use load_teacher")
    _classifies(header, file)
    seed = _seed(header, seed, file)
    tensors = load_tensors(file)
    parts = {name: below(tensors, f"{name}.") for name in ("objective", "teacher")} if header.predicts else {}
    if header.kind == "students":
        own, parts["objective"] = below(tensors, f"{seed}.student."), below(tensors, f"{seed}.objective.")
    else:
        own = {k: v for k, v in tensors.items() if not header.predicts or not k.startswith(("objective.", "teacher."))}
        own.pop("example", None)
    network = _filled(header.architecture, header, own, file)
    header = header.model_copy(update={"seeds": (seed,)})
    if not header.predicts:
        return Student(network, header)
    teacher = None
    if header.teachers:
        name, architecture = next(iter(header.teachers.items()))
        teacher = _filled(architecture, header, parts["teacher"], file, name)
    objective = _objective(header, network, teacher, tensors["example"])
    stored = parts["objective"]
    _fill(objective, of_main(stored, header.objective) if header.kind == "students" else stored, file)
    return Student(network, header, objective.eval(), teacher, tensors["example"])


def load_teacher(path: str | Path) -> Teacher:
    """Load a teacher's `model.safetensors`, or the one in a folder, ready to classify.

    Raises DistilleryError if the file is missing or damaged, says nothing about itself, or holds students or what is no
    classifier.
    """
    file = weights_file(Path(path))
    header = Header.read(file)
    if header.kind != "teacher":
        raise DistilleryError(f"{file} holds students: use load_student")
    _classifies(header, file)
    return Teacher(_filled(header.architecture, header, load_tensors(file), file, header.teacher), header)


def weights_file(path: Path) -> Path:
    """The weights file at a path: itself, or the one in a folder. Raises DistilleryError for a folder without one."""
    path = path.expanduser()
    if not path.is_dir():
        return path
    found = next((path / name for name in FILES if (path / name).exists()), None)
    if found is None:
        raise DistilleryError(f"{path} holds neither {' nor '.join(FILES)}: name the file, or its folder")
    return found


def _classifies(header: Header, file: Path) -> None:
    """Refuse the networks of other tasks, which say of themselves what they are and what opens them."""
    kind = models.NETWORKS[header.architecture].get()
    if said := getattr(kind, "no_classifier", ""):
        raise DistilleryError(f"{file} holds no classifier but {said}")


def _seed(header: Header, seed: int | None, file: Path) -> int:
    seeds = ", ".join(map(str, header.seeds))
    if seed is None and len(header.seeds) > 1:
        raise DistilleryError(f"{file} holds the students of seeds {seeds}: choose one, `load_student(..., seed=0)`")
    if seed is not None and seed not in header.seeds:
        raise DistilleryError(f"{file} holds no student of seed {seed}, but of {seeds}")
    return header.seeds[0] if seed is None else seed


def _filled(
    architecture: str, header: Header, weights: Mapping[str, Tensor], file: Path, teacher: str | None = None
) -> Network:
    network = models.build(architecture, len(header.class_names), header.image[0]).to(_dtype(header)).eval()
    _fill(network, weights, file)
    own = header.preprocessing.get(teacher) if teacher else None
    return see(network, own, header.mean, header.std).eval()


def _dtype(header: Header) -> torch.dtype:
    return torch.float64 if header.recipe.get("precision") == "float64" else torch.float32


def _fill(module: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    fill(module, weights, str(file), "does not hold the weights that it describes")


@torch.no_grad()
def _objective(header: Header, network: Network, teacher: Network | None, example: Tensor) -> Objective:
    """Rebuild the objective as its run did: by the shapes that networks give for the example image."""
    gain, offset = gain_and_offset(header.mean, header.std, header.scale, _dtype(header))
    image = example.to(gain.dtype) * gain + offset
    outputs = teacher(image, preacts=True) if teacher is not None else None
    classes = len(header.class_names)
    labels = torch.arange(header.train_images) % classes
    context = Context(classes, labels, network(image, preacts=True), outputs, teacher)
    return build(Method.model_validate(main_alone(header.objective)), context).to(_dtype(header))
