"""Recipes, as records hold them, side by side."""

from __future__ import annotations

from typing import Any

from distillery.recipe import PARTS
from distillery.study.blocks import Recipe

# How a training is computed, not what training it is.
_COMPUTING = ("test_every", "precision", "channels_last", "deterministic", "graph", "compile", "tap_preacts")


def described(recipe: dict[str, Any]) -> dict[str, Any]:
    """All that decides the training, flat, with the defaults of keys that an older record does not have.

    Names of the optimiser and of the schedule are `optimizer` and `schedule`; their settings come beside, as
    `momentum`, or `optimizer.betas` where the recipe has no such key of its own.
    """
    values = {k: v for k, v in (Recipe().model_dump(mode="json") | recipe).items() if k not in _COMPUTING}
    for part, (_, usual, short) in PARTS.items():
        block = values.pop(part) or {"name": usual} | {k: values[k] for k in short}
        values = {k: v for k, v in values.items() if k not in short} | {part: block["name"]}
        values |= {k if k in short else f"{part}.{k}": v for k, v in block.items() if k != "name"}
    return values


def precision_of(recipe: dict[str, Any]) -> str:
    """What networks were computed in, said wherever runs of two precisions meet; compiled ones are marked."""
    precision = recipe.get("precision", Recipe().precision)
    return f"{precision}, compiled" if recipe.get("compile") else str(precision)


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The names under which two described recipes differ; the settings of another optimiser do not count as well."""
    names = [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)]
    other = [part for part in PARTS if part in names]
    return [n for n in names if not any(n in PARTS[part][2] or n.startswith(f"{part}.") for part in other)]
