"""Families: methods that are the same but for their temperature. What of a cell makes its family, and labels."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from typing import Any


def place(cell: Any) -> tuple[str, float] | None:
    """All that decides how a cell was run but for the temperature, as text, and the temperature; None without one."""
    block = dict(cell.facts.get("objective", {}))  # as it was run, defaults filled in
    temperature = block.pop("temperature", None)
    if temperature is None:
        return None
    return json.dumps([block, cell.facts["recipe"]], sort_keys=True), float(temperature)


def parts(cell: Any) -> str:
    """The objective of a cell with its plug-ins and partners: "kd + standardise"."""
    block = cell.facts["objective"]
    return " + ".join([block["objective"], *sorted(block.get("plugins", {})), *sorted(block.get("plus", {}))])


def names(first: Any) -> tuple[str, ...]:
    """What a family may be called by its first cell; a pair has a method once, so the last is its alone."""
    return parts(first), first.label, f"{first.label}, {first.pair}"


def labels(panels: list[list[tuple[str, ...]]]) -> list[list[str]]:
    """A label for every family of every panel: its first candidate that no panel has twice, else its last."""
    shared = {
        name
        for families in panels
        for name, count in Counter(chain.from_iterable(set(names) for names in families)).items()
        if count > 1
    }
    return [[next((n for n in names if n not in shared), names[-1]) for names in families] for families in panels]
