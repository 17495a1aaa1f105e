"""Class-wise effect of distillation for every cell: against the student trained alone, and against the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from distillery.evaluation.class_change import ClassChange, class_change, disagreement, disagreement_rate
from distillery.evaluation.statistics import SMALLEST
from distillery.report.results import Cell, Results


@dataclass(frozen=True)
class ClassEffect:
    """Counts for one cell, None where nothing could be tested or compared.

    Attributes:
        sc, tc: classes that changed significantly against the student alone (#SC) and against the teacher (#TC).
        sc_holm, tc_holm: those that remain with Holm's correction over the classes.
        teachers: trainings of the teacher that `tc` compares with: all of the study that differ from the pair's own in
            the seed alone. Against one it is no #TC (see `class_change`).
        alone_disagreement, teacher_disagreement: test images, in percent, that the two models label differently,
            averaged over seeds.
    """

    pair: str
    method: str
    classes: int
    sc: int | None
    sc_holm: int | None
    tc: int | None
    tc_holm: int | None
    alone_disagreement: float | None
    teacher_disagreement: float | None
    teachers: int = 1


def alone(results: Results, pair: str) -> Cell | None:
    """The cell of the student trained without a teacher, if the study has one with runs."""
    methods = results.study.methods
    found = (
        c
        for c in results.column(pair)
        if methods[c.method].objective == results.task.plain and not methods[c.method].plus
    )
    return next((cell for cell in found if cell.runs), None)


@lru_cache(maxsize=1024)  # the table and two figures ask for the same
def against_alone(results: Results, cell: Cell) -> ClassChange | None:
    """Class-wise change from the student trained alone to a distilled one."""
    other = alone(results, cell.pair)
    if other is None or other.method == cell.method or not cell.runs:
        return None
    return class_change(_per_class(cell), _per_class(other), _images(cell))


def against_teacher(cell: Cell, results: Results | None = None) -> ClassChange | None:
    """Class-wise change from the teacher to a student."""
    return class_change(_per_class(cell), [t["per_class"] for t in _trainings(cell, results)], _images(cell))


def _trainings(cell: Cell, results: Results | None = None) -> list[dict[str, Any]]:
    """The teachers like the pair's first one if they are enough to know their spread, else the first alone.

    They are looked for in all pairs: a teacher may be repeated with other seeds, each for students of its own.
    """
    known = {name: t for other in results or () for name, t in other.facts.get("teachers", {}).items()}
    teachers = list((cell.facts.get("teachers", {}) | known).values())
    alike = {t["trained"]["seed"]: t for t in teachers if _trained_alike(t, teachers[0])}
    return list(alike.values()) if len(alike) >= SMALLEST else teachers[:1]


def _trained_alike(teacher: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether one recipe trained both; none is known of teachers that were fetched or are students."""
    one, two = ((t["architecture"], t.get("trained", {}).get("recipe")) for t in (teacher, other))
    return one == two and one[1] is not None


def disagreement_with_alone(results: Results, cell: Cell) -> np.ndarray | None:
    """Disagreement of a cell's students with the students trained alone, (C, C) counts summed over common seeds."""
    other = alone(results, cell.pair)
    if other is None or other.method == cell.method:
        return None
    pairs = [(cell.runs[s]["predictions"], other.runs[s]["predictions"]) for s in cell.runs if s in other.runs]
    return _summed(pairs, cell)


def disagreement_with_teacher(cell: Cell) -> np.ndarray | None:
    """Disagreement of a cell's students with the (first) teacher, (C, C) counts summed over seeds."""
    taught = [(run, next(iter(run["facts"].get("teachers", {}).values()), None)) for run in cell.runs.values()]
    return _summed([(run["predictions"], teacher["predictions"]) for run, teacher in taught if teacher], cell)


def effects(results: Results) -> list[ClassEffect]:
    """Class-wise effects of all cells that have runs."""
    found = []
    for cell in results:
        if not cell.runs or "per_class" not in next(iter(cell.runs.values())):
            continue
        sc, tc = against_alone(results, cell), against_teacher(cell, results)
        matrices = disagreement_with_alone(results, cell), disagreement_with_teacher(cell)
        rates = [None if m is None else disagreement_rate(m) for m in matrices]
        found.append(
            ClassEffect(
                cell.pair,
                cell.method,
                len(cell.facts["data"]["class_names"]),
                sc=sc.significant if sc else None,
                sc_holm=sc.significant_holm if sc else None,
                tc=tc.significant if tc else None,
                tc_holm=tc.significant_holm if tc else None,
                alone_disagreement=rates[0],
                teacher_disagreement=rates[1],
                teachers=len(_trainings(cell, results)),
            )
        )
    return found


def _per_class(cell: Cell) -> list[np.ndarray]:
    return [run["per_class"] for run in cell.runs.values()]


def _images(cell: Cell) -> list[int]:
    return np.bincount(cell.facts["labels"], minlength=len(cell.facts["data"]["class_names"])).tolist()


def _summed(pairs: list[tuple[np.ndarray, np.ndarray]], cell: Cell) -> np.ndarray | None:
    """Counts over all pairs of predictions; None without any, and a cell without runs knows no classes either."""
    if not pairs:
        return None
    classes = len(cell.facts["data"]["class_names"])
    return np.sum([disagreement(a, b, classes) for a, b in pairs], axis=0)
