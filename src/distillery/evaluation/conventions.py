"""Which epoch a result is quoted from: the conventions of the field, told apart by name."""

from __future__ import annotations

from typing import Any


def best(history: list[dict[str, Any]], split: str, measure: str, higher: bool = True) -> dict[str, Any] | None:
    """Return test scores at the epoch with the best `measure` on a split: "test" (selected on the test set) or "val"
    (on held-out samples). It is the first such epoch if several are alike; None if no epoch was tested so.
    """
    by = f"{split}_{measure}"
    measured = [record for record in history if record.get(by) is not None]
    if not measured:
        return None
    sign = 1 if higher else -1
    chosen = max(measured, key=lambda record: (sign * record[by], -record["epoch"]))
    scores = {k.removeprefix("test_"): v for k, v in chosen.items() if k.startswith("test_") and k != "test_loss"}
    facts = {"epoch": chosen["epoch"]} | scores
    return facts if split == "test" else facts | {by: chosen[by]}


def curves(history: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Turn one record per epoch into one list per quantity (null where an epoch was not tested)."""
    names = dict.fromkeys(key for record in history for key in record)
    return {name: [_short(record.get(name)) for record in history] for name in names}


def _short(value: float | None) -> float | None:
    return round(value, 6) if isinstance(value, float) else value
