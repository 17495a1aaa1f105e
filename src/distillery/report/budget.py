"""Footnotes for rows that were trained with another budget than the baseline, taken from the run records."""

from __future__ import annotations

from typing import Any

from distillery.report.recipes import described, differing, precision_of
from distillery.report.results import Cell, Results

# What the keys of a recipe are called, where their names do not say it.
LABELS = {
    "lr": "learning rate",
    "pad": "crop padding",
    "then": "augmentations",
    "validation": "held-out fraction",
    "ema": "weight average",
}


def budget(facts: dict[str, Any]) -> dict[str, Any]:
    """What a run was given: all of its recipe that decides the training, and the images that it has seen."""
    recipe = described(facts["recipe"])
    epochs, augmentation = recipe.pop("epochs"), recipe.pop("augmentation")
    return {"epochs": epochs, "images seen": facts["cost"]["images_seen"]} | recipe | augmentation


def footnotes(results: Results) -> dict[str, str]:
    """What sets a method apart from the baseline (without one: from most methods) of its column, in one sentence."""
    found: dict[str, dict[str, list[str]]] = {}
    for pair in results.study.pairs:
        column = [cell for cell in results.column(pair) if cell.facts]
        if reference := _reference(results, column):
            for cell in column:
                if differs := _compare(budget(cell.facts), reference):
                    found.setdefault(cell.method, {}).setdefault(differs, []).append(pair)
    notes = {}
    for method, texts in found.items():
        everywhere = {len(pairs) for pairs in texts.values()} == {len(results.study.pairs)}
        parts = [text if everywhere else f"{text} ({', '.join(pairs)})" for text, pairs in texts.items()]
        notes[method] = "trained with another budget: " + "; ".join(parts)
    return notes | _precisions(results, notes)


def _precisions(results: Results, notes: dict[str, str]) -> dict[str, str]:
    """Methods that were computed in another precision, which is no budget but may move a number."""
    used = {c.method: precision_of(c.facts["recipe"]) for c in results if c.facts}
    usual = used.get(results.study.tables.baseline or "") or max(used.values(), key=[*used.values()].count, default="")
    return {
        method: "; ".join([*filter(None, [notes.get(method)]), f"computed in {precision} instead of {usual}"])
        for method, precision in used.items()
        if precision != usual
    }


def _reference(results: Results, column: list[Cell]) -> dict[str, Any] | None:
    baseline = next((c for c in column if c.method == results.study.tables.baseline), None)
    if baseline:
        return budget(baseline.facts)
    budgets = [budget(cell.facts) for cell in column]
    return max(budgets, key=budgets.count) if budgets else None


def _compare(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say what differs; images seen only where the epochs do not explain them."""
    names = differing(ours, theirs)
    if "epochs" in names and ours["images seen"] * theirs["epochs"] == theirs["images seen"] * ours["epochs"]:
        names.remove("images seen")
    return ", ".join(f"{called(n)} {said(ours.get(n))} instead of {said(theirs.get(n))}" for n in names)


def called(name: str) -> str:
    """A key of a recipe as a sentence says it."""
    return LABELS.get(name, name.replace("_", " ").replace(".", " "))


def said(value: Any) -> str:
    """A setting as a sentence says it."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(said, value))
    if isinstance(value, dict):
        return "(" + " ".join(f"{called(k)} {said(v)}" for k, v in value.items()) + ")"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
