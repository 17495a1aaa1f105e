"""The table of detectors: AP of every class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from distillery.evaluation.statistics import mean_and_sd
from distillery.task import Section

NOTE = (
    "AP in percent, over IoU 0.5 to 0.95: of the teacher, then mean ± standard deviation over a method's runs. "
    "Objects: those of the test images, without crowds."
)


def by_class(cells: Sequence[Any]) -> list[Section]:
    """For every pair a row for each class that the test images have, the most frequent one first."""
    sections, pairs = [], dict.fromkeys(cell.pair for cell in cells)
    for pair in pairs:
        mine = [cell for cell in cells if cell.pair == pair]
        facts = mine[0].facts
        names = facts["data"]["class_names"]
        objects = zip(facts["test_labels"], facts["test_crowd"], strict=True)
        counts = Counter(names[int(label)] for label, crowd in objects if not crowd)
        teachers = {f"teacher {name}": [found] for name, found in facts["teachers"].items()}
        columns = teachers | {cell.label: list(cell.runs.values()) for cell in mine}
        rows = tuple(
            (name, str(count), *(_text(runs, name) for runs in columns.values()))
            for name, count in counts.most_common()
        )
        title = "AP by class" + (f": {pair}" if len(pairs) > 1 else "")
        sections.append(Section(title, ("class", "objects", *columns), rows, NOTE))
    return sections


def _text(runs: Sequence[Any], name: str) -> str:
    return mean_and_sd([found for run in runs if (found := run["classes"].get(name)) is not None], 2)
