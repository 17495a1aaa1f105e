"""Numbers that papers, repositories and released logs print, each with its source.

They are in `published.json` here, and in a file of that name in the folder of every task that has some.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distillery.study.blocks import Method

FILE = Path(__file__).with_name("published.json")
OF_TASKS = sorted(Path(__file__).parents[1].glob("tasks/*/published.json"))
_NAMES = {"ce": "student_ce", "label_revision": "lr", "kd with swap": "swap(la)"}  # ours -> published
_NAMES |= {"vkd_tokens": "vkd"}
# Architectures that go by another name where their numbers are published: ours -> published.
_NETWORKS = {"deit_ti_distilled": "deit_ti", "vkd_deit_ti": "deit_ti", "vkd_deit_s": "deit_s"}
_NETWORKS |= {f"imagenet_resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50)}
_NETWORKS |= {f"torchvision/resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}
# The published VkD does not say which of these weights its teacher has.
_NETWORKS |= {f"timm/regnety_160.{tag}": "regnety_160" for tag in ("deit_in1k", "sw_in12k_ft_in1k")}
_DATASETS = {"streamed_cifar100": "cifar100"}  # sources of ours that give the images of another one
_SMALL_VITS = ("deit_ti", "pit_ti", "pvt_ti", "t2t_vit_7")  # on CIFAR-100, taught by the ResNet-56 of another code base


@dataclass(frozen=True)
class Published:
    """One printed number.

    `kind`: own, quoted_baseline, reproduction; `report`: last, best, validation, unknown, as_original. `digits`: the
    decimals that its table prints, if that is known.
    """

    paper: str
    table: str
    source: str
    lineage: str
    kind: str
    report: str
    teacher: str
    student: str
    method: str
    value: float
    sd: float | None = None
    trials: int | None = None
    note: str | None = None
    digits: int | None = None


@cache
def _content() -> dict[str, Any]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (FILE, *OF_TASKS)]
    return {part: [entry for content in found for entry in content[part]] for part in ("tables", "settings")}


@cache
def numbers(dataset: str, measure: str) -> dict[tuple[str, str, str], tuple[Published, ...]]:
    """All published numbers for a measure on a data set, by (teacher, student, method)."""
    found: dict[tuple[str, str, str], tuple[Published, ...]] = {}
    for table in _content()["tables"]:
        if (table["dataset"], table["metric"]) != (dataset, measure):
            continue
        head = {k: table[k] for k in ("paper", "table", "source", "lineage", "kind", "report")}
        head |= {k: table.get(k) for k in ("trials", "note")}
        head["digits"] = _decimals(table["rows"])
        for pair, cells in table["rows"].items():
            teacher, student = pair.split(" > ")
            for method, number in cells.items():
                value, sd = number if isinstance(number, list) else (number, None)
                entry = Published(**head, teacher=teacher, student=student, method=method, value=value, sd=sd)
                found[teacher, student, method] = (*found.get((teacher, student, method), ()), entry)
    return found


def _decimals(rows: dict[str, dict[str, Any]]) -> int:
    """The most that any of a table's numbers has: 72.5 among numbers with two is 72.50."""
    printed = (str(number[0] if isinstance(number, list) else number) for of in rows.values() for number in of.values())
    return max(len(text.partition(".")[2]) for text in printed)


def dataset_of(source: str) -> str:
    """Under which data set the numbers for a source of ours are published."""
    return _DATASETS.get(source, source)


def method_name(method: Method) -> str | None:
    """The published name of a method block; None if nothing of the kind was published."""
    objective = "kd" if method.objective == "deit" and method.hyper.get("kind") == "soft" else method.objective
    base = " with ".join([objective, *sorted(set(method.plugins) - {"standardise"})])
    if base not in _NAMES and base != objective:
        return None
    name = "+".join([_NAMES.get(base, base), *sorted(method.plus)])
    return name + ("+ls" if "standardise" in method.plugins else "")


def of_pair(dataset: str, measure: str, teacher: str, student: str, method: str) -> tuple[Published, ...]:
    """What is published for a pair of our architectures and a method by its published name."""
    student = _NETWORKS.get(student, student)
    teacher = _NETWORKS.get(teacher, teacher)
    if student in _SMALL_VITS and teacher == "resnet56":
        teacher = "resnet56_pycls"
    known = numbers(dataset, measure)
    alone = known.get(("none", student, method), ()) if method == "student_ce" else ()
    return known.get((teacher, student, method), ()) + alone


def settings(dataset: str, entry: Published) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the sources say a published number was run with: hyper-parameters and recipe keys, most specific last.

    What they do not say is left out; a hyper-parameter that is None is known to be unknown.
    """
    values: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    pair = f"{entry.teacher} > {entry.student}"
    for row in _content()["settings"]:
        same = (row["dataset"], row["method"]) == (dataset, entry.method)
        if same and row["pair"] in ("*", pair) and row.get("lineage", entry.lineage) == entry.lineage:
            values |= row.get("values", {})
            recipe |= row.get("recipe", {})
    return values, recipe


def teacher_score(dataset: str, measure: str, entry: Published) -> float | None:
    """The published number of an entry's teacher: from its own table if that prints it, else its lineage, or any."""
    rows = [
        e
        for (teacher, _, method), es in numbers(dataset, measure).items()
        if (teacher, method) == (entry.teacher, "teacher")
        for e in es
    ]
    rows.sort(key=lambda e: (e.lineage != entry.lineage, (e.paper, e.table) != (entry.paper, entry.table)))
    return rows[0].value if rows else None
