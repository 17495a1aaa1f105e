"""No captured step waits for the host: every objective, plug-in, choice, combination, in the whole step, backward too.

The step runs on torch's meta device, which stands for the GPU: tensors there have a device that is not the CPU, and no
numbers. Below it a dispatch mode sees every operation, those of the backward pass included. (Fake CUDA tensors would
show the same, but torch's autograd engine asks the driver about their device.) What would read a number back, what has
a shape that depends on numbers, and what mixes or crosses devices fails; so do the solvers that report their status to
the host, which the meta device would let pass.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from test_all_methods import BLOCKS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillery import models
from distillery.data.dataset import Dataset
from distillery.objectives import OBJECTIVES
from distillery.objectives.build import needs as needs_of
from distillery.objectives.plugins import PLUGINS
from distillery.study.blocks import Method, Recipe
from distillery.tasks.classification.training import assemble
from distillery.teachers.source import LiveTeachers
from distillery.training.step import GraphStep
from distillery.training.trainee import Trainee

RECIPE = Recipe(batch_size=8, augmentation={"pad": 1, "flip": False}, channels_last=True)
META = torch.device("meta")
READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "is_nonzero", "equal", "bincount")
VALUES = ("index_fill.int_Tensor", "masked_fill.Tensor", "repeat_interleave.Tensor")  # the kernel on CUDA reads these
SOLVERS = ("_linalg_eigh", "_linalg_svd", "linalg_lu", "_linalg_solve", "linalg_cholesky", "linalg_inv", "linalg_eig")
SOLVERS += ("linalg_householder_product", "linalg_qr", "linalg_matrix_exp")


def choices() -> dict[str, dict[str, Any]]:
    """Every value of every key that is a choice (a Literal, a truth value), of objectives and plug-ins."""
    found = {}
    for registry in (OBJECTIVES, PLUGINS):
        for name, component in registry.items():
            for key, field in component.load().Config.model_fields.items():
                kind = field.annotation
                values = get_args(kind) if get_origin(kind) is Literal else (True, False) if kind is bool else ()
                for value in values:
                    if value != field.default:
                        block = {"objective": "kd", "plugins": {name: {key: value}}}
                        if registry is OBJECTIVES:
                            block = {"objective": name, key: value}
                        found[f"{name} {key}={value}"] = block
    return found


EVERY = BLOCKS | choices()
EVERY["deit mean=entries"]["kind"] = "soft"  # a mean over the teacher's distribution
EVERY["kd with two"] = {"objective": "kd", "plugins": {"standardise": {}, "revise": {}}}


class Watch(TorchDispatchMode):
    """Notes what a CUDA graph could not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = f"{func._schema.name.removeprefix('aten::').removesuffix('_')}.{func._overloadname}"
        self.count += 1
        indexed = (
            [t for t in tree_leaves(args[1]) if isinstance(t, Tensor)]
            if name.startswith(("index.", "index_put"))
            else []
        )
        if name.startswith((*READS, *SOLVERS)) or name in VALUES or any(t.dtype == torch.bool for t in indexed):
            self.seen.append(name)
        out = func(*args, **(kwargs or {}))
        devices = {t.device.type for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)}
        if devices - {"meta"}:
            self.seen.append(f"{name} on {' and '.join(sorted(devices))}")
        return out


@pytest.fixture(scope="module")
def data() -> Dataset:
    torch.manual_seed(0)
    images, labels = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 10
    return Dataset(images, labels, images[:2], labels[:2], tuple("0123456789"), 16.0, (0.3,), (0.4,), torch.arange(40))


def step_of(block: dict[str, Any], data: Dataset) -> tuple[Trainee, GraphStep]:
    """The captured step on the meta device, ready to be warmed up."""
    method = Method.model_validate(block)
    needs = needs_of(method)
    used = [models.build("resnet8_w8", 10, 1).eval() for _ in range(2 if "teachers" in needs else bool(needs))]
    # Of another width than the teacher's, but for SimKD's kind; with a distillation head for those that need one.
    trainee = assemble("deit_w48_p2" if "distilled" in needs else "resnet8_w4", method, data, used, 0)
    trainee.student.to(META).train()
    trainee.objective.to(META).train()
    for module in trainee.objective.modules():  # frozen parts of the teacher that are not the objective's own modules
        for frozen in getattr(module, "_teacher", ()):
            frozen.to(META)
    source = LiveTeachers([network.to(META) for network in used], RECIPE, needs)
    optimizer = torch.optim.SGD(trainee.parameters(), lr=0.1, foreach=True)
    loader = data.to(META).loader(RECIPE)
    step = GraphStep(trainee, optimizer, source.teach, RECIPE, META)
    step.begin(loader.epoch(0, 1, "strong" in needs), 1)
    return trainee, step


def watched(block: dict[str, Any], data: Dataset) -> tuple[bool, list[str]]:
    """Whether the method says that its step can be captured, and what a CUDA graph could not hold of it."""
    trainee, step = step_of(block, data)
    assert step.epoch is not None
    step.epoch.batch(slice(0, 8))  # makes the table of views' pixels, which is kept
    with Watch() as watch:
        step._advance(8)
    assert watch.count > 100
    return trainee.objective.static, watch.seen


# The choices are slow only all together.
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in BLOCKS else [pytest.mark.slow]) for n in EVERY])
def test_a_step_that_is_captured_never_asks_the_host(name: str, data: Dataset) -> None:
    try:
        static, seen = watched(EVERY[name], data)
    except (RuntimeError, NotImplementedError) as error:  # a number was asked for, and there is none
        static, seen = step_of(EVERY[name], data)[0].objective.static, [str(error)]
    assert static != bool(seen), (static, seen)
