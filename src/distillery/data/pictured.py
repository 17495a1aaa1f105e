"""Images with one class each: arrays in memory (`Dataset`), or encoded files in a blob (`PhotoSet`)."""

from __future__ import annotations

from pathlib import Path

from distillery.data.arrays import BLOB
from distillery.data.dataset import Dataset
from distillery.data.photo_set import PhotoSet
from distillery.records.io import read_metadata

Pictured = Dataset | PhotoSet


def open_pictured(path: Path, sha256: str | None = None) -> Pictured:
    """Read what the data stage wrote: the arrays, or the index to the blob that lies beside it.

    Raises:
        DistilleryError: if a file is missing or damaged.
        StaleInput: if it is not what its facts describe.
    """
    if '"blob"' in read_metadata(path).get("facts", "{}"):
        return PhotoSet.load(path, path.with_name(BLOB))
    return Dataset.load(path, sha256=sha256)
