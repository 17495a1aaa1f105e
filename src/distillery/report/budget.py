"""Footnotes for rows that were trained with another budget than the baseline, taken from the run records."""

from __future__ import annotations

from collections import Counter
from typing import Any

from distillery.report.results import Cell, Results


def budget(facts: dict[str, Any]) -> dict[str, Any]:
    """What a run was given, by name: epochs, images, batch, rate, augmentation, held-out images."""
    recipe, cost = facts["recipe"], facts["cost"]
    return {
        "epochs": recipe["epochs"],
        "images seen": cost["images_seen"],
        "batch size": recipe["batch_size"],
        "learning rate": recipe["lr"],
        "weight decay": recipe["weight_decay"],
        "crop padding": recipe["augmentation"]["pad"],
        "flip": recipe["augmentation"]["flip"],
        "held-out fraction": recipe["validation"],
    }


def footnotes(results: Results) -> dict[str, str]:
    """One sentence per method whose budget is not that of the baseline (without one: of most methods) in its column."""
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
    return notes


def _reference(results: Results, column: list[Cell]) -> dict[str, Any] | None:
    baseline = next((c for c in column if c.method == results.study.tables.baseline), None)
    if baseline:
        return budget(baseline.facts)
    budgets = Counter(tuple(budget(cell.facts).items()) for cell in column)
    return dict(budgets.most_common(1)[0][0]) if budgets else None


def _compare(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Say what differs; images seen only where the epochs do not explain them."""
    names = [name for name in ours if ours[name] != theirs[name]]
    if "epochs" in names and ours["images seen"] * theirs["epochs"] == theirs["images seen"] * ours["epochs"]:
        names.remove("images seen")
    return ", ".join(f"{name} {_text(ours[name])} instead of {_text(theirs[name])}" for name in names)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
