"""A classifier as a program that needs no Distillery: ONNX, and torch's own export. Normalisation is inside.

Both take float images in [0, 1] in batches of any size, and compute in float32.
"""

from __future__ import annotations

import copy
import importlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillery.errors import DistilleryError
from distillery.students.classifier import Classifier

ONNX, TORCH = "model.onnx", "model.pt2"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # the extra `onnx`
IMAGES, LOGITS = "images", "logits"  # the names of the program's input and output


def have_onnx() -> None:
    """Raise DistilleryError if a package is missing that writing or checking ONNX needs."""
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise DistilleryError(
                f"--onnx needs the package {package}, which is not installed: pip install 'distillery[onnx]'"
            ) from None


def write_onnx(classifier: Classifier, path: Path) -> None:
    """Write an ONNX program: `images`, (B, C, H, W) float32 in [0, 1] for any B, to `logits`, (B, classes)."""
    program = torch.onnx.export(
        _float32(classifier),
        _example(classifier),
        dynamo=True,
        input_names=[IMAGES],
        output_names=[LOGITS],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(_told(classifier))
    program.save(path)


def write_torch(classifier: Classifier, path: Path) -> None:
    """Write a program for `torch.export.load`: (B, C, H, W) float32 images in [0, 1], any B, to (B, classes) logits."""
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(_float32(classifier), _example(classifier), dynamic_shapes=dynamic)
    written = io.BytesIO()  # of a disk that is full torch's own writer speaks in frames of C++
    torch.export.save(program, written, extra_files={f"{k}.json": v for k, v in _told(classifier).items()})
    path.write_bytes(written.getvalue())


def open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Return an ONNX program as a function of (B, C, H, W) float32 images, run on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        [logits] = session.run([LOGITS], {IMAGES: images.numpy()})
        return torch.from_numpy(np.asarray(logits))

    return run


def open_torch(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a program that `write_torch` wrote as a function of (B, C, H, W) float32 images."""
    program: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return program


def _float32(classifier: Classifier) -> Classifier:
    """What programs compute in, whatever the student was trained in; the runtimes have no more for convolutions."""
    found = copy.deepcopy(classifier).float()
    with torch.no_grad():
        found(
            *_example(found)
        )  # a module of the user's may be looked at in its first pass, which is no part of a program
    return found


def _example(classifier: Classifier) -> tuple[Tensor]:
    return (torch.zeros(2, *classifier.metadata.image),)  # two images: a batch of one would be taken for a constant


def _told(classifier: Classifier) -> dict[str, str]:
    """What travels with the program."""
    facts: dict[str, Any] = {"class_names": classifier.class_names, "title": classifier.metadata.title}
    return {key: json.dumps(value) for key, value in facts.items()}
