"""The images that a study of generation may use: a fraction of the training images, the others withheld."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError


def said_of(selection: dict[str, Any], fraction: float, seed: int) -> dict[str, Any]:
    """What decides which images are trained on: what a source selects, and what is left of that."""
    chosen = {key: value for key, value in selection.items() if value not in (None, {}, [])}
    return chosen if fraction == 1 else chosen | {"fraction": fraction, "fraction_seed": seed}


def limited(data: Dataset, fraction: float, seed: int) -> Dataset:
    """A data set with `fraction` of the training images, drawn without replacement and not by class.

    The draw is KD-DLGAN's (`np.random.seed(seed)`, `choice`), but of rows in canonical order, so other images.
    """
    if fraction == 1:
        return data
    count = len(data.train_labels)
    kept = np.random.RandomState(seed).choice(count, int(count * fraction), replace=False)
    rows = torch.from_numpy(np.sort(kept))
    if not len(rows):
        raise DistilleryError(f"task.fraction: {fraction:g} of {count} images is none: raise it")
    at = rows.to(data.train_labels.device)
    said = {"selection": said_of(data.facts["selection"], fraction, seed)}
    counts = {"counts": data.facts["counts"] | {"train": len(rows)}}
    return dataclasses.replace(
        data,
        train_images=data.train_images[at],
        train_labels=data.train_labels[at],
        rows=data.rows[rows],
        facts=data.facts | said | counts,
    )


def load(path: Path, sha256: str, fraction: float, seed: int, device: torch.device) -> Dataset:
    """Read the canonical arrays, and keep the fraction."""
    return limited(Dataset.load(path, sha256=sha256), fraction, seed).to(device)


def bright(images: Tensor, scale: float) -> Tensor:
    """(N, C, H, W) uint8 images of full brightness `scale` as ones of 255."""
    return images if scale == 255 else (images.float() * (255 / scale)).round().to(torch.uint8)
