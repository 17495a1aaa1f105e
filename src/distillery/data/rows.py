"""Tables of numbers as canonical arrays: a row is an image of one pixel, whose channels are the row's features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillery.data.arrays import Arrays, Bytes
from distillery.errors import DistilleryError


def arrays_of_rows(
    splits: dict[str, tuple[Bytes, NDArray[Any]]],
    class_names: list[str],
    measured: NDArray[np.bool_],
    selection: dict[str, Any],
    groups: dict[str, NDArray[Any]] | None = None,
    group_names: tuple[str, list[str]] | None = None,
    scale: float = 1.0,
) -> Arrays:
    """Arrays of "train" and "test" rows, each sorted by label, then in the order in which they came.

    Args:
        splits: features (N, F) uint8 and labels (N,) by name of the split.
        measured: (F,) which features are quantities: these are normalised to zero mean and unit deviation over the
            training rows, the others (flags) stay as they are.
        groups: (N,) group of every row by name of the split, where the source has groups.
        group_names: what the groups differ in ("sex"), and their names.
        scale: value that counts as 1.

    Raises DistilleryError for a quantity of one value, which nothing can be learnt from.
    """
    tensors: dict[str, Any] = {}
    for split, (features, labels) in splits.items():
        order = np.argsort(labels, kind="stable")
        tensors[f"{split}_images"] = np.ascontiguousarray(features[order])[:, None, None, :]
        tensors[f"{split}_labels"] = labels[order].astype(np.uint8)
        if groups is not None:
            tensors[f"{split}_groups"] = groups[split][order].astype(np.uint8)
    values = tensors["train_images"][:, 0, 0, :].astype(np.float64) / scale
    mean, std = values.mean(axis=0), values.std(axis=0)
    if (flat := np.flatnonzero(measured & (std == 0))).size:
        raise DistilleryError(f"feature {flat[0]} has one value in all training rows: leave it out")
    return Arrays(
        tensors,
        class_names,
        scale,
        [round(float(m), 4) if of else 0.0 for m, of in zip(mean, measured, strict=True)],
        [round(float(s), 4) if of else 1.0 for s, of in zip(std, measured, strict=True)],
        selection,
        *(group_names or ()),
    )
