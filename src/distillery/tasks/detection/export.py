"""A trained detector as a folder that stands alone: weights, configuration, a card, what it finds in a few images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distillery.data.precision import dtype_of
from distillery.records import io as artifacts
from distillery.records.header import KEY
from distillery.study.blocks import Recipe
from distillery.tasks.detection.data import BoxData
from distillery.tasks.detection.detector import WEIGHTS, load_detector
from distillery.tasks.detection.drawing import drawn
from distillery.tasks.detection.loader import BoxLoader
from distillery.tasks.detection.precision import average_precision
from distillery.tasks.detection.predictions import SURE
from distillery.tasks.detection.program import ONNX, TORCH, largest, write
from distillery.tasks.detection.testing import detect

CARD = """\
# {architecture}, {title}

Finds {classes}. AP {ap:.2f}, AP50 {ap50:.2f}, AP75 {ap75:.2f} percent (COCO's average precision) on {images} test
images, measured with this file; `examples.png` shows some of them. With Distillery installed, in this folder:

```python
import torch
from torchvision.io import decode_image
from torchvision.utils import save_image

from distillery.tasks.detection.detector import load_detector

detector = load_detector(".")
image = decode_image("photo.jpg", mode="RGB")  # (3, H, W) uint8 of any size
boxes, labels, scores = detector(image, least={least})  # corners in pixels; the surest first
print([(detector.metadata.class_names[label], score) for label, score in zip(labels.tolist(), scores.tolist())])
save_image(detector.drawn(image, least={least}) / 255, "found.png")
```
"""


PROGRAM = """ takes
`image`, (1, 3, {height}, {width}) float32 in [0, 1] with an image in its upper left corner, whose sides were
changed as `size` in config.json says, and `size`, (2,) int64, its height and width there. It gives `found`, (100, 6)
float32: left, top, right, bottom in pixels of that image, score, class; the surest first, score 0 where nothing more
was found. AP of the program: {ap:.2f} percent.
"""
SAID = {
    ONNX: "\n`model.onnx` is the detector as an ONNX program. It" + PROGRAM,
    TORCH: "\n`model.pt2` is the detector for `torch.export.load(...).module()`. It" + PROGRAM,
}


def export(
    weights: Path, seed: int, arrays: Path, recipe: Recipe, folder: Path, programs: Sequence[str] = ()
) -> dict[str, float]:
    """Part "export": write one student into a folder, and measure again what was written.

    Args:
        weights: of the students of one block of seeds.
        arrays: index of the data that they were trained on.
        programs: which to write, too: `program.WRITERS`.

    Returns:
        AP in percent by the name of the file, first of the weights.
    """
    student = load_detector(weights, seed)
    header = student.metadata.model_copy(update={"kind": "student", "seeds": (seed,)})
    artifacts.save_tensors(folder / WEIGHTS, student.network.state_dict(), header.metadata())
    names = {i: name for i, name in enumerate(header.class_names) if name}
    config = {
        "model_type": "distillery",
        "architectures": [header.architecture],
        "id2label": {str(i): name for i, name in names.items()},
        "label2id": {name: i for i, name in names.items()},
        "size": {"shortest_edge": header.image[1], "longest_edge": header.image[2]},
        "image_mean": list(header.mean),
        "image_std": list(header.std),
        "rescale_factor": 1 / header.scale,
        KEY: header.model_dump(mode="json"),
    }
    artifacts.write_json(folder / "config.json", config)
    data, written = BoxData.load(arrays), load_detector(folder)
    network = written.network.to(dtype_of(recipe))  # measured as it was tested
    found = detect(network, BoxLoader(data, recipe).splits()["test"], recipe).numpy()
    main, _, _ = average_precision(found, data.test, data.class_names)
    Image.fromarray(_abreast(drawn(found, data, SURE))).save(folder / "examples.png")
    reached = {WEIGHTS: main["ap"]}
    for name in programs:
        of_program, _, _ = average_precision(write(name, written, data, folder), data.test, data.class_names)
        reached[name] = of_program["ap"]
    facts = {"architecture": header.architecture, "title": header.title, "images": len(data.test), "least": SURE}
    text = CARD.format(classes=", ".join(names.values()), **facts, **main)
    height, width = largest(data)
    for name in programs:
        text += SAID[name].format(height=height, width=width, ap=reached[name])
    (folder / "README.md").write_text(text, encoding="utf-8")
    return reached


def _abreast(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(h, w, 3) images side by side, black below the lower ones."""
    high = max(len(image) for image in images)
    return np.concatenate([np.pad(i, ((0, high - len(i)), (0, 0), (0, 0))) for i in images], axis=1)
