"""Cost of every objective, loss forward + backward, relative to plain KD measured in the same moment.

    python benchmarks/objectives.py [--markdown] [--methods kd,dkd,...] [--device cuda] [--seconds 1]

Prints only. Student and teacher outputs are those of resnet8x4 and resnet32x4 on 32x32 images (B = 64 with 100 classes,
B = 512 with 1000), taken once; what is timed is the objective alone, down to the gradients of the student's outputs and
of the objective's own modules. KD and the objective run in turn, so that a busy machine slows both; the ratio is the
median over the pairs. On a shared CPU core all objectives need six minutes at `--seconds 0.2`, nearly all of it for
those that read feature maps at B = 512; progress goes to standard error. Objectives for networks of another kind
(transformers with a distillation head) are left out, and standard error says why.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from types import SimpleNamespace

import torch
from tabulate import tabulate
from torch import Tensor

from distillery import models
from distillery.models.base import Network, Outputs, with_cams
from distillery.objectives import OBJECTIVES
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.build import build

SIZES = ((64, 100), (512, 1000))
IMAGES = 50_000  # of the training set: the memory banks of CRD have a row for each


def leaves(outputs: Outputs) -> Outputs:
    """The same values as inputs that gather gradients."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_()

    pooled, cams = (None if given is None else leaf(given) for given in (outputs.pooled, outputs.cams))
    maps, preacts = (tuple(map(leaf, given)) for given in (outputs.maps, outputs.preacts))
    return Outputs(leaf(outputs.logits), pooled, maps, preacts, cams=cams)


def tensors(outputs: Outputs) -> list[Tensor]:
    single = [given for given in (outputs.pooled, outputs.cams) if given is not None]
    return [outputs.logits, *single, *outputs.maps, *outputs.preacts]


def sample(size: int, classes: int, device: torch.device) -> tuple[Batch, Context]:
    """One batch of real network outputs, and the context of its run."""
    torch.manual_seed(0)
    student, teacher = (models.build(name, classes).to(device).eval() for name in ("resnet8x4", "resnet32x4"))

    def outputs(network: Network, images: Tensor) -> Outputs:
        with torch.no_grad():
            given = with_cams(network, network(images, preacts=True))
        return replace(given, logits=4 * given.logits / given.logits.std())  # as confident as a trained network

    images, labels = torch.randn(size, 3, 32, 32, device=device), torch.randint(classes, (IMAGES,), device=device)
    given, told = outputs(student, images), outputs(teacher, images)
    one = (outputs(student, images[:1]), outputs(teacher, images[:1]))
    context = Context(classes, labels, *one, teacher_model=teacher.requires_grad_(False))
    batch = Batch(
        targets=labels[:size],
        student=leaves(given),
        teachers=(told, told),
        epoch=torch.tensor(30.0, device=device),
        index=torch.arange(size, device=device),
        strong_student=leaves(Outputs(given.logits.flip(0))),
        strong_teacher=Outputs(told.logits.flip(0)),
    )
    return batch, context


def stepper(objective: Objective, batch: Batch) -> Callable[[], float]:
    """One timed forward + backward, in seconds."""
    assert batch.strong_student is not None
    inputs = [*tensors(batch.student), *tensors(batch.strong_student), *objective.parameters()]

    def step() -> float:
        for tensor in inputs:
            tensor.grad = None
        synchronise(batch.labels.device)
        start = time.perf_counter()
        torch.stack([term.reshape(()) for term in objective(batch).values()]).sum().backward()
        synchronise(batch.labels.device)
        return time.perf_counter() - start

    return step


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make(name: str, context: Context, device: torch.device) -> Objective:
    method = SimpleNamespace(objective=name, hyper={}, plus={}, plugins={})
    return build(method, context).to(device)


def measure(step: Callable[[], float], baseline: Callable[[], float], seconds: float) -> tuple[float, float]:
    """Milliseconds of a step and its ratio to the baseline; at least 3 pairs, else as many as fit in `seconds`."""
    step(), baseline()  # first calls allocate
    times: list[float] = []
    ratios: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        reference, taken = baseline(), step()
        times.append(taken)
        ratios.append(taken / reference)
    return 1e3 * median(times), median(ratios)


def main(argv: list[str] | None = None) -> None:
    known = list(OBJECTIVES)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.add_argument("--methods", default=",".join(known), help="comma-separated objectives (default: all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="measuring time per objective and size")
    options = parser.parse_args(argv)
    names, device = options.methods.split(","), torch.device(options.device)
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"unknown objective {', '.join(unknown)}; there are {', '.join(known)}")

    rows: dict[str, list[object]] = {}
    for size, classes in SIZES:
        batch, context = sample(size, classes, device)
        baseline = stepper(make("kd", context, device), batch)
        for name in names:
            try:
                objective = make(name, context, device)
            except Incompatible as reason:
                print(f"B={size} {name}: left out: {reason}", file=sys.stderr)
                continue
            taken, ratio = measure(stepper(objective, batch), baseline, options.seconds)
            rows.setdefault(name, [name]).extend([f"{taken:.2f}", f"{ratio:.2f}"])
            print(f"B={size} {name}: {taken:.2f} ms", file=sys.stderr)
    heads = [head for size, classes in SIZES for head in (f"B={size} C={classes}, ms", "x KD")]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"forward + backward of the loss alone, torch {torch.__version__}, {where}")
    print(
        tabulate(
            rows.values(), ["objective", *heads], "github" if options.markdown else "simple", disable_numparse=True
        )
    )


if __name__ == "__main__":
    main()
