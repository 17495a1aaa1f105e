"""Students of every task outside the pipeline: loaded, or refused in one sentence that says what opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distillery import models
from distillery.api import DistilleryError, Header, load_student
from distillery.models import NETWORKS
from distillery.records.io import save_tensors
from distillery.task import TASKS
from distillery.tasks.detection.detector import load_detector
from distillery.tasks.generation.biggan import Generator
from distillery.tasks.generation.generator import load_generator

IMAGE = {"detection": (3, 64, 96), "generation": (3, 16, 16)}
OTHERS = {
    "detection": "a detector: open it by distillery.tasks.detection.detector.load_detector",
    "generation": "open the generator beside it by distillery.tasks.generation.generator.load_generator",
    "ranking": "a recommender, which scores the items of its study",
}


def architecture(task: str) -> str:
    """A student that only this task has, or else a small classifier."""
    rows = NETWORKS._rows.items()
    own = [name for name, row in rows if row.module.startswith(f"distillery.tasks.{task}.") and "clip" not in name]
    return {"detection": "retinanet_r10_w64", "generation": "biggan_ch2"}.get(task, own[0] if own else "resnet8_w2")


def written(folder: Path, task: str, weights: dict[str, Tensor]) -> Path:
    """A file of one student, as the stage `distill` writes it."""
    header = Header(
        kind="students", study="s", pair="p", method="m", seeds=(3,), architecture=architecture(task),
        class_names=("a", "b", "c"), image=IMAGE.get(task, (3, 8, 8)), scale=255.0, mean=(0.5,) * 3, std=(0.25,) * 3,
        data={"source": "x", "selection": {}}, train_images=9, settings_sha256="",
    )  # fmt: skip
    save_tensors(folder / "students.safetensors", weights, header.metadata())
    return folder


def student(task: str) -> dict[str, Tensor]:
    network: Any = models.build(architecture(task), 3, 3)
    return {f"3.student.{k}": v for k, v in network.state_dict().items()}


@pytest.mark.parametrize("task", TASKS)
def test_a_student_is_loaded_or_refused_in_one_sentence(task: str, tmp_path: Path) -> None:
    if architecture(task) == "resnet8_w2":
        found = load_student(written(tmp_path, task, student(task)))
        assert found(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
        return
    with pytest.raises(DistilleryError) as refused:
        load_student(written(tmp_path, task, {"3.student.a": torch.zeros(1)}))
    sentence = str(refused.value)
    assert OTHERS.get(task, "") in sentence and "\n" not in sentence and len(sentence) < 400


def test_a_generator_is_opened(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Generator(3, 3, 16, 2)
    weights = {f"3.objective.average.{k}": v for k, v in network.state_dict().items()}
    generator = load_generator(written(tmp_path, "generation", student("generation") | weights))
    labels = torch.arange(6) % 3
    images = generator.sample(labels)
    assert images.shape == (6, 3, 16, 16) and images.dtype == torch.uint8
    assert torch.equal(images, generator.sample(labels)) and not torch.equal(images, generator.sample(labels, seed=1))
    assert not torch.equal(images, generator.sample(labels, running=True))
    noise = torch.randn(2, 128)
    with torch.no_grad():
        assert torch.equal(generator(noise, labels[:2]), network.eval()(noise, labels[:2]))  # a sample moves nothing
    with pytest.raises(DistilleryError, match="whole numbers from 0 to 2"):
        generator.sample(torch.tensor([3]))
    with pytest.raises(DistilleryError, match="no student of seed 4: it has 3"):
        load_generator(tmp_path, 4)
    with pytest.raises(DistilleryError, match="holds no generator"):
        load_generator(written(tmp_path, "generation", student("generation")))
    with pytest.raises(DistilleryError, match="does not hold the generator that it describes"):
        load_generator(written(tmp_path, "generation", weights | {"3.objective.average.more": torch.zeros(1)}))


def test_a_detector_that_is_another_one_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "detection", {"3.student.a": torch.zeros(1)}) / "students.safetensors"
    with pytest.raises(DistilleryError, match="does not hold the detector that it describes"):
        load_detector(file)
