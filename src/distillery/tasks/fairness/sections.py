"""Tables of fairness: gaps of students beside their teachers', and their trend in the temperature of distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distillery.evaluation.families import labels, names, place
from distillery.evaluation.statistics import ALPHA, holm, mean_and_sd
from distillery.evaluation.trend import crossed
from distillery.task import Section, Task

_SOURCES = (
    "Demographic parity and equalised odds: reproduced (the paper's definitions, held to fairlearn); individual "
    "unfairness: declared design; the data set and the recipe: declared design. Smaller is fairer."
)


def gaps(task: Task, cells: Sequence[Any]) -> Section:
    """A row for every method, over all pairs and seeds, and one for the teachers."""
    header = ("method", "runs", *(m.label if m.unit != "%" else f"{m.label}, %" for m in task.measures))
    rows, teachers = [], dict[str, dict[str, Any]]()
    methods = dict.fromkeys(cell.label for cell in cells)
    for cell in cells:
        teachers |= cell.facts.get("teachers", {})
    found = [(f"teacher {name}", of) for name, of in _by_architecture(teachers).items()]
    found += [(m, _runs([cell for cell in cells if cell.label == m])) for m in methods]
    for name, runs in found:
        if runs:
            summaries = [mean_and_sd([run["last"][m.name] for run in runs], m.digits) for m in task.measures]
            rows.append((name, str(len(runs)), *summaries))
    note = f"Mean ± standard deviation over trainings of all pairs together. {_SOURCES}"
    return Section("Gaps between groups", header, tuple(rows), note)


def trends(task: Task, cells: Sequence[Any]) -> list[Section]:
    """Page's trend test of every measure over methods that differ in the temperature alone, by family of methods."""
    sections = []
    for title, temperatures, runs in _families(cells):
        tested = [
            (m, crossed([[[last[m.name] for last in of] for of in seeds] for seeds in runs])) for m in task.measures
        ]
        corrected = holm([t.p for _, t in tested])
        rows = tuple(
            (
                m.label,
                "none seen" if p >= ALPHA else "rises" if t.p_rising < t.p_falling else "falls",
                f"{t.slope:+.{m.digits + 1}f}",
                f"{t.p:.2g}",
                f"{p:.2g}",
            )
            for (m, t), p in zip(tested, corrected, strict=True)
        )
        shown = ", ".join(f"{t:g}" for t in temperatures)
        note = (
            f"Page's test for ordered alternatives over T = {shown}{_blocks(runs)}. Slope: mean change from one T to "
            "the next. p: two-sided; corrected: by Holm over the measures; a trend is named where that is below 0.05. "
            "The test is this project's declared choice: no text names the paper's."
        )
        header = ("measure", "trend with T", "slope", "p", "corrected p")
        sections.append(Section(f"Trend in the temperature: {title}", header, rows, note))
    return sections


def _blocks(runs: Sequence[Sequence[Any]]) -> str:
    teachers = f" in {len(runs)} blocks: a block is a teacher, its students averaged over seeds"
    if len(runs[0]) < 2:
        return teachers
    return f"{teachers}; and in {len(runs[0])} blocks: a block is a seed, averaged over teachers; the larger p counts"


def _families(cells: Sequence[Any]) -> list[tuple[str, list[float], list[list[list[dict[str, float]]]]]]:
    """(title, temperatures, measures by teacher, seed and temperature), where three temperatures or more are.

    A family has students of one architecture. Only teachers that have all temperatures count.
    """
    found: dict[tuple[str, str], dict[float, list[Any]]] = {}
    for cell in cells:
        if cell.runs and (at := place(cell)):
            found.setdefault((at[0], cell.facts["architecture"]), {}).setdefault(at[1], []).append(cell)
    several, families = len({cell.facts["architecture"] for cell in cells}) > 1, []
    for (_, student), by_temperature in found.items():
        temperatures, runs = sorted(by_temperature), _crossed(by_temperature)
        if len(temperatures) > 2 and len(runs) > 1 and runs[0]:
            called = [f"{name}, {student}" * several or name for name in names(by_temperature[temperatures[0]][0])]
            families.append((tuple(called), temperatures, runs))
    (titles,) = labels([[called for called, *_ in families]])
    return [(title, *family[1:]) for title, family in zip(titles, families, strict=True)]


def _crossed(by_temperature: dict[float, list[Any]]) -> list[list[list[dict[str, float]]]]:
    """For every teacher that has all temperatures, of every seed that is everywhere, the measures by temperature."""
    found: dict[str, dict[float, dict[int, dict[str, float]]]] = {}
    for temperature, cells in sorted(by_temperature.items()):
        for cell in cells:
            teacher = found.setdefault(" + ".join(cell.facts["teachers"]), {})
            teacher.setdefault(temperature, {}).update({seed: run["last"] for seed, run in cell.runs.items()})
    whole = [of for of in found.values() if len(of) == len(by_temperature)]
    common = set.intersection(*({*runs} for of in whole for runs in of.values())) if whole else set()
    return [[[runs[seed] for runs in of.values()] for seed in sorted(common)] for of in whole]


def _runs(cells: list[Any]) -> list[dict[str, Any]]:
    """The runs of a method in all pairs. Without a teacher pairs of one student train the same: these count once."""
    alike: dict[str, Any] = {}
    for i, cell in enumerate(cells):
        alone = cell.facts["cost"]["teacher_outputs"] == "none"
        alike.setdefault(cell.facts["architecture"] if alone else str(i), cell)
    return [run for cell in alike.values() for run in cell.runs.values()]


def _by_architecture(teachers: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for teacher in teachers.values():
        found.setdefault(teacher["architecture"], []).append(teacher)
    return found
