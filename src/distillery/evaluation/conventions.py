"""Which epoch a result is quoted from: the conventions of the field, told apart by name."""

from __future__ import annotations

from typing import Any


def best(history: list[dict[str, Any]], by: str) -> dict[str, Any] | None:
    """Return test accuracy at the epoch with the highest `by` ("test_top1": selected on the test set; "val_top1":
    on held-out training images), the first such epoch if several; None if no epoch has it.
    """
    measured = [record for record in history if record.get(by) is not None]
    if not measured:
        return None
    chosen = max(measured, key=lambda record: (record[by], -record["epoch"]))
    facts = {"epoch": chosen["epoch"], "top1": chosen["test_top1"], "top5": chosen["test_top5"]}
    return facts if by == "test_top1" else facts | {by: chosen[by]}


def curves(history: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Turn one record per epoch into one list per quantity (null where an epoch was not tested)."""
    names = dict.fromkeys(key for record in history for key in record)
    return {name: [_short(record.get(name)) for record in history] for name in names}


def _short(value: float | None) -> float | None:
    return round(value, 6) if isinstance(value, float) else value
