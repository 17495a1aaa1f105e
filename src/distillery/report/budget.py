"""Footnotes for rows that were trained with another budget than the baseline, taken from the run records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distillery.report.recipes import described, differing, precision_of
from distillery.report.results import Results

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
    budgets = _apart(results, budget, _compare)
    # A precision is no budget, but may move a number.
    precisions = _apart(results, lambda facts: precision_of(facts["recipe"]), _instead)
    notes: dict[str, list[str]] = {}
    for begin, found in (("trained with another budget: ", budgets), ("computed in ", precisions)):
        for method, text in found.items():
            notes.setdefault(method, []).append(begin + text)
    return {method: "; ".join(texts) for method, texts in notes.items()}


def _apart(results: Results, of: Callable[[dict[str, Any]], Any], compare: Callable[[Any, Any], str]) -> dict[str, str]:
    """What `compare` says of each method against its column's baseline (or most methods), with the pairs if not all."""
    found: dict[str, dict[str, list[str]]] = {}
    for pair in results.study.pairs:
        column = {cell.method: of(cell.facts) for cell in results.column(pair) if cell.facts}
        values = list(column.values())
        for method, ours in column.items():
            usual = column.get(results.study.tables.baseline or "") or max(values, key=values.count)
            if differs := compare(ours, usual):
                found.setdefault(method, {}).setdefault(differs, []).append(pair)
    notes = {}
    for method, texts in found.items():
        everywhere = {len(pairs) for pairs in texts.values()} == {len(results.study.pairs)}
        parts = [text if everywhere else f"{text} ({', '.join(pairs)})" for text, pairs in texts.items()]
        notes[method] = "; ".join(parts)
    return notes


def _instead(ours: str, theirs: str) -> str:
    return "" if ours == theirs else f"{ours} instead of {theirs}"


def _compare(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say what differs; images seen only where the epochs do not explain them."""
    names = differing(ours, theirs)
    if "epochs" in names and ours["images seen"] * theirs["epochs"] == theirs["images seen"] * ours["epochs"]:
        names.remove("images seen")
    return _in_words(ours, theirs, names)


def compared(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """What differs between two described recipes, in words; "" if nothing does."""
    return _in_words(ours, theirs, differing(ours, theirs))


def _in_words(ours: dict[str, Any], theirs: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{called(n)} {said(ours.get(n))} instead of {said(theirs.get(n))}" for n in names)


def called(name: str) -> str:
    """A key of a recipe as a sentence says it."""
    return LABELS.get(name, name.replace("_", " ").replace(".", " "))


def said(value: Any) -> str:
    """A setting as a sentence says it."""
    if value in (None, [], {}):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(said, value))
    if isinstance(value, dict):
        of = ", ".join(f"{called(k)} {said(v)}" for k, v in value.items() if k != "name" and v is not None)
        return " ".join(filter(None, (str(value.get("name", "")), f"({of})" if of else ""))) or "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
