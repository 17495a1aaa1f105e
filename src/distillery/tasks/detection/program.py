"""A trained detector as a program that needs no Distillery: ONNX, and torch's own export. Normalisation is inside.

A program is made for images of one height and width; smaller ones lie in its upper left corner. What a detector finds
depends a little on how much is empty there, since its normalisations see that, too: the card says what it reaches so.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import nms
from torchvision.transforms.v2 import functional as F

from distillery.data.blob import Blob
from distillery.data.views import gain_and_offset
from distillery.errors import DistilleryError
from distillery.tasks.detection.criterion import CODER
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.detections import Detections, Pictures
from distillery.tasks.detection.detector import LoadedDetector
from distillery.tasks.detection.predictions import CANDIDATES, COLUMNS, FEW, MOST, OVERLAP, best_of_sets
from distillery.tasks.detection.views import Size, fitted

ONNX, TORCH = "model.onnx", "model.pt2"
IMAGE, SIZE, FOUND = "image", "size", "found"  # names of inputs and output
COMPARED, SAME = 3, 1e-3  # test images on which a program is compared with its network; by how much scores may differ
Run = Callable[[Tensor, Tensor], Tensor]


class Program(nn.Module):
    """(1, 3, H, W) float32 image in [0, 1] and (2,) int64 height and width of what it holds -> (100, 6).

    The output is left, top, right, bottom in pixels of the image, score, class; the surest first, score 0 where no
    more was found.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, detector: LoadedDetector) -> None:
        super().__init__()
        self.network = detector.network.float()
        gain, offset = gain_and_offset(detector.metadata.mean, detector.metadata.std, 1.0, torch.float32)
        self.register_buffer("gain", gain)
        self.register_buffer("offset", offset)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, size: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        below = torch.arange(height, device=image.device)[:, None] >= size[0]
        padding = (below | (torch.arange(width, device=image.device)[None] >= size[1]))[None]
        outputs = self.network(Pictures((image * self.gain + self.offset).masked_fill(padding, 0.0), padding))
        assert isinstance(outputs, Detections)
        if outputs.head == "set":
            return best_of_sets(outputs.logits, size[None])[0]
        return anchors_of_one(outputs.logits[0], size)


def anchors_of_one(predicted: Tensor, size: Tensor, most: int = MOST) -> Tensor:
    """What `predictions.best_of_anchors` gives for one image, (most, 6), by operations whose sizes are known before.

    Args:
        predicted: (A, C + 8).
        size: (2,) height and width of the image; boxes are in its pixels.
    """
    classes = predicted.shape[1] - 8
    scores, at = predicted[:, :classes].sigmoid().flatten().topk(min(CANDIDATES, predicted[:, :classes].numel()))
    anchor, label = at // classes, (at % classes).to(predicted.dtype)
    boxes = CODER.decode_single(predicted[anchor, -8:-4], predicted[anchor, -4:])
    boxes = torch.minimum(boxes.clamp(min=0), size.flip(0).repeat(2).to(boxes.dtype))
    kept = nms(boxes + label[:, None] * (boxes.max() + 1), scores, OVERLAP)  # classes lie apart
    chosen = torch.zeros_like(scores).scatter(0, kept, 1.0) * (scores > FEW)
    best, order = (scores * chosen).topk(min(most, len(scores)))
    found = torch.cat([boxes[order], best[:, None], label[order, None]], dim=1) * (best > 0)[:, None]
    return torch.cat([found, found.new_zeros(most - len(found), COLUMNS)])


def largest(data: BoxData) -> Size:
    """Height and width that hold every test image."""
    sizes = np.array([fitted(data.test.size(row), data.short_side, data.max_side) for row in range(len(data.test))])
    height, width = sizes.max(0).tolist()
    return height, width


def write_onnx(program: Program, size: Size, path: Path, facts: dict[str, str]) -> Run:
    """Write an ONNX program for images of that size and open it. Raises DistilleryError if the network has no such."""
    import onnxruntime

    try:
        made = torch.onnx.export(
            program, _example(size), dynamo=True, input_names=[IMAGE, SIZE], output_names=[FOUND], verbose=False
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise DistilleryError(f"--onnx: this network cannot be written as ONNX ({_reason(error)})") from None
    assert made is not None
    made.model.metadata_props.update(facts)
    made.save(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor, of: Tensor) -> Tensor:
        [found] = session.run([FOUND], {IMAGE: image.numpy(), SIZE: of.numpy()})
        return torch.from_numpy(np.asarray(found))

    return run


def write_torch(program: Program, size: Size, path: Path, facts: dict[str, str]) -> Run:
    """Write a program for `torch.export.load(...).module()`, and open it."""
    made = torch.export.export(program, _example(size))
    written = io.BytesIO()  # of a disk that is full torch's own writer speaks in frames of C++
    torch.export.save(made, written, extra_files={f"{key}.json": value for key, value in facts.items()})
    path.write_bytes(written.getvalue())
    opened: Run = torch.export.load(path).module()
    return opened


WRITERS: dict[str, Callable[[Program, Size, Path, dict[str, str]], Run]] = {ONNX: write_onnx, TORCH: write_torch}


def write(name: str, detector: LoadedDetector, data: BoxData, folder: Path) -> NDArray[np.float32]:
    """Write a program; return what it finds in the test images, (N, 100, 6) in their pixels.

    Raises DistilleryError if it finds others than its network does.
    """
    program, size = Program(detector), largest(data)
    names = {i: name for i, name in enumerate(detector.metadata.class_names) if name}
    facts = {"class_names": json.dumps(names), "title": json.dumps(detector.metadata.title)}
    run, blob = WRITERS[name](program, size, folder / name, facts), Blob(data.blob)
    everything = np.zeros((len(data.test), MOST, COLUMNS), dtype=np.float32)
    for row in range(len(data.test)):
        whole = data.test.size(row)
        image, seen = canvas(data.image(blob, data.test, row), size, fitted(whole, data.short_side, data.max_side))
        found = run(image, seen)
        if row < COMPARED and (gap := float((found[:, 4] - program(image, seen)[:, 4]).abs().max())) > SAME:
            raise DistilleryError(f"{name} is not the network it was made of: its scores differ by up to {gap:.2g}")
        back = torch.tensor(whole).flip(0).repeat(2) / seen.flip(0).repeat(2)
        everything[row] = torch.cat([found[:, :4] * back, found[:, 4:]], dim=1).numpy()
    blob.close()
    return everything


def canvas(image: Tensor, size: Size, seen: Size) -> tuple[Tensor, Tensor]:
    """What a program takes for a (3, H, W) uint8 image that it is to see in the size `seen`: image and size."""
    whole = torch.zeros(1, 3, *size)
    whole[0, :, : seen[0], : seen[1]] = F.resize(image, [*seen], antialias=True) / 255
    return whole, torch.tensor(seen)


def _example(size: Size) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, 3, *size), torch.tensor(size)


def _reason(error: BaseException) -> str:
    """The first cause, in short."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:160]
