"""Data sources, canonical arrays and views. Importing this package costs nothing: torch and the sources come later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.records.io import atomic_path, save_tensors, sha256_array, sha256_json
from distillery.registry import Registry

if TYPE_CHECKING:
    from distillery.data.arrays import Source

SOURCES = Registry(
    "data source",
    "distillery.data.arrays:Source",
    {
        "digits": "distillery.data.digits:Digits",
        "cifar100": "distillery.data.cifar100:CIFAR100",
        "cifar10": "distillery.data.cifar10:CIFAR10",
        "folder": "distillery.data.folder:Folder",
        "npz": "distillery.data.npz:Npz",
        "tiny_imagenet": "distillery.data.tiny_imagenet:TinyImageNet",
        "streamed_folder": "distillery.data.streamed_folder:StreamedFolder",
        "imagenet": "distillery.data.imagenet:ImageNet",
        "streamed_cifar100": "distillery.data.streamed_cifar100:StreamedCIFAR100",
    },
    elsewhere={
        # Rows of features, clips, or images by rule: found by name, but whoever goes through the list wants pictures.
        "adult": "distillery.data.adult:Adult",
        "frames": "distillery.data.frames:Frames",
        "gaussian": "distillery.data.gaussian:Gaussian",
        "moving_digits": "distillery.data.moving_digits:MovingDigits",
        "multilabel": "distillery.data.multilabel:Multilabel",
        "trifeature": "distillery.data.trifeature:Trifeature",
        "citeulike": "distillery.tasks.ranking.source:CiteULike",
        "coco": "distillery.tasks.detection.layouts:Coco",
        "interactions": "distillery.tasks.ranking.source:Interactions",
        "voc": "distillery.tasks.detection.layouts:Voc",
        "yolo": "distillery.tasks.detection.layouts:Yolo",
    },
)


def open_source(name: str, options: dict[str, Any]) -> Source:
    """Return a source with its options. Raises DistilleryError naming an unknown source or option and the nearest."""
    kind = SOURCES[name].load()
    source: Source = kind(kind.Config.read(options, "data."))
    return source


def prepare(source: str, options: dict[str, Any], path: Path, blob: Path | None = None) -> dict[str, Any]:
    """Write the canonical arrays of a source to a safetensors file; return the facts about them, which it holds too.

    Images are (N, H, W, C) uint8, labels (N,) uint8, or uint16 for more than 256 classes; what other tasks have is
    theirs, with `tensors` and `facts()` too. File and facts depend on the content alone, never on the route by which it
    came (archive or mirror). The images of a streamed source go to `blob`, and their index to `path`; for others the
    blob is empty.
    """
    from distillery.data.pixels import too_large

    opened = open_source(source, options)
    if opened.streamed and blob is not None:
        return opened.write(source, path, blob)
    if (shape := opened.shape()) and (warning := too_large(shape)):
        print(warning, flush=True)
    arrays = opened.load()
    hashes = {name: sha256_array(array) for name, array in arrays.tensors.items()}
    facts = {"source": source} | arrays.facts()
    facts |= {"sha256_of": hashes, "content": sha256_json(hashes)}  # of the raw bytes of each array, in C order
    save_tensors(Path(path), arrays.tensors, {"facts": json.dumps(facts, sort_keys=True)})
    if blob is not None:
        with atomic_path(blob) as temporary:
            temporary.touch()
    return facts
