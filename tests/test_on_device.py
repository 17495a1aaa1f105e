"""On a CUDA device: captured steps have the bits of eager ones, runs repeat, float64 agrees with the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_all_methods import BLOCKS
from test_graph_step import equal

from distillery import models
from distillery.data.dataset import Dataset
from distillery.data.precision import dtype_of
from distillery.objectives.build import needs as needs_of
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.teachers.source import LiveTeachers
from distillery.training.device import set_up
from distillery.training.loop import fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
RECIPE = Recipe(epochs=2, batch_size=16, lr=0.02, milestones=(1,), augmentation={"pad": 1, "flip": False})
EVERY = BLOCKS | {
    "vkd with householder": {"objective": "vkd", "orthogonal_map": "householder"},
    "vkd with cayley": {"objective": "vkd", "orthogonal_map": "cayley"},
    "vkd that whitens": {"objective": "vkd", "normalise": "whiten"},
}
# Loss and gradient depend on the signs that a solver gives to singular vectors; negatives are drawn on the device.
OWN_NUMBERS = ("kdsvd", "crd")


def images() -> Dataset:
    """Forty images: two batches of 16 and one of 8."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (56, 1, 8, 8), dtype=torch.uint8, generator=draw)
    labels, names = torch.arange(56) % 10, tuple("0123456789")
    return Dataset(pixels[:40], labels[:40], pixels[40:], labels[40:], names, 255.0, (0.5,), (0.3,), torch.arange(40))


def trained(block: dict[str, Any], recipe: Recipe) -> tuple[Any, dict[str, torch.Tensor]]:
    device = set_up(recipe)
    data, method = images().to(device), Method.model_validate(block)
    needs, teachers = needs_of(method), []
    for seed in range(2 if "teachers" in needs else bool(needs)):
        torch.manual_seed(seed)
        teachers.append(models.build("resnet8_w8", 10, 1).to(device, dtype_of(recipe)).eval())
    source = LiveTeachers(teachers, recipe, needs) if teachers else None
    trainee = assemble("deit_w48_p2" if "distilled" in needs else "resnet8_w4", method, data, teachers, 3)
    history = fit(trainee, data.loader(recipe), source, recipe, 3)
    return history, {k: v.cpu() for k, v in trainee.student.state_dict().items()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", EVERY)
def test_captured_steps_have_the_bits_of_eager_ones_and_repeat(name: str, precision: str) -> None:
    recipe = RECIPE.updated({"precision": precision, "channels_last": precision == "bfloat16"})
    history, weights = trained(EVERY[name], recipe)
    again, same = trained(EVERY[name], recipe)
    assert again == history and equal(weights, same)
    eagerly, eager = trained(EVERY[name], recipe.updated({"graph": False}))
    assert eagerly == history and equal(weights, eager)


@pytest.mark.parametrize("name", [name for name in EVERY if not any(own in name for own in OWN_NUMBERS)])
def test_losses_in_float64_are_those_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPE.updated({"precision": "float64"})
    history, _ = trained(EVERY[name], recipe)
    monkeypatch.setenv("DISTILLERY_DEVICE", "cpu")
    expected, _ = trained(EVERY[name], recipe)
    for here, there in zip(history, expected, strict=True):
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-6)
