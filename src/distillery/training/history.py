"""Histories on disk: one float64 array per run and quantity, NaN where an epoch was not tested."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from distillery.records.io import load_arrays, save_tensors


def save_history(path: Path, histories: dict[str, list[dict[str, Any]]]) -> None:
    """Write histories (one dictionary per epoch) by run."""
    arrays = {}
    for run, history in histories.items():
        for name in dict.fromkeys(key for record in history for key in record):
            arrays[f"{run}.{name}"] = np.array([record.get(name, math.nan) for record in history], dtype=np.float64)
    save_tensors(path, arrays)


def load_history(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read histories back, by run; a quantity that an epoch does not have is left out. Without torch."""
    columns: dict[str, dict[str, Any]] = {}
    for key, values in load_arrays(path).items():
        run, name = key.split(".", 1)
        columns.setdefault(run, {})[name] = values.tolist()
    return {run: _rows(found) for run, found in columns.items()}


def _rows(columns: dict[str, list[float]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i in range(len(columns["epoch"])):
        row: dict[str, Any] = {name: values[i] for name, values in columns.items() if not math.isnan(values[i])}
        row["epoch"] = int(row["epoch"])
        rows.append(row)
    return rows
