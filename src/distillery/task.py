"""What a task is: the names of its parts and of what is measured. `TASKS` lists them; each is a folder of `tasks/`.

Nothing here imports torch: whoever only plans or reads results pays for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from distillery.config import Config as BaseConfig
from distillery.registry import Component, Registry

TASKS = Registry(
    "task",
    "distillery.task:Task",
    {
        "classification": "distillery.tasks.classification:Classification",
        "detection": "distillery.tasks.detection:Detection",
        "ranking": "distillery.tasks.ranking:Ranking",
        "generation": "distillery.tasks.generation:Generation",
        "fairness": "distillery.tasks.fairness:Fairness",
        "known": "distillery.tasks.known:Known",
        "retrieval": "distillery.tasks.retrieval:Retrieval",
    },
)


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that is measured about a student.

    Attributes:
        name: its key in histories, records and tables: "top1".
        label: in words: "test accuracy".
        unit: "%", "points", or "" for a plain number.
        higher_is_better: the direction of improvement.
        digits: decimals in a table.
        short: what figures call it: "top-1".
        share: whether it is the percentage of test samples that are right, so that one of them is worth 100 / n points.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool = True
    digits: int = 2
    short: str = ""
    share: bool = False

    @property
    def title(self) -> str:
        """The label with its unit."""
        unit = "percent" if self.unit == "%" else self.unit
        return f"{self.label} in {unit}" if unit else self.label

    @property
    def axis(self) -> str:
        """Name and unit, for the axis of a figure."""
        return f"test {self.short or self.name}" + (f", {self.unit}" if self.unit else "")

    def gain(self, difference: float) -> float:
        """A difference of two values as an improvement: positive where the first is better."""
        return difference if self.higher_is_better else -difference


TOP1 = Measure("top1", "test accuracy", "%", short="top-1", share=True)  # of classifiers, whatever the task


@dataclass(frozen=True, slots=True)
class Column:
    """One column of runs.csv: a number that was measured about every run.

    Attributes:
        name: its header.
        label: in words.
        path: where it lies in a run's results: keys joined by dots, `*` for the first entry of a mapping.
        shown: whether the report's table of measures shows it.
    """

    name: str
    label: str
    path: str
    shown: bool = False

    def of(self, run: Mapping[str, Any]) -> Any:
        """Its value for a run; None where there is none."""
        found: Any = run
        for key in self.path.split("."):
            if not isinstance(found, Mapping):
                return None
            found = next(iter(found.values()), None) if key == "*" else found.get(key)
        return found


@dataclass(frozen=True, slots=True)
class Section:
    """One table that a task adds to the result tables.

    Attributes:
        title: what stands above it.
        header, rows: texts; the first two columns are left-aligned, the others are numbers.
        note: what the columns are, and where each row's definition is from.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


class Task:
    """Base of every task's declaration. A nested `Config` declares the keys of the study's `task:` block.

    Attributes:
        name: as the study says it: a row of `TASKS`, or `path/to/file.py:Class`.
        measures: what every student is judged by, each under `last` in a run's results. The first is what the main
            table shows, and what a best epoch is chosen by.
        columns: what else the results of a run hold, for runs.csv and the report.
        plain: the objective that trains without a teacher; teachers are trained by it.
        parts: "module:Class", or "path/to/file.py:Class", of what does the work, imported when it is asked for:
            "training" (a `distillery.training.task.Training`: what is trained, and how it is tested), "evaluation" (an
            `distillery.evaluation.task.Evaluation`: what is measured in the end), "cache" (`run(work)`: what is kept of
            a teacher), "rehearsal" (`rehearse(study, images)`: what would fail). Of the last two there are ones that
            do nothing in `distillery.tasks.plain`. A task whose students are no classifiers may have "export"
            (`export(weights, seed, arrays, recipe, folder, programs)`: fills the folder, with the programs that are
            asked for, of model.onnx and model.pt2; returns the main measure by file, of the weights first).
        labelled: whether its samples have labels that `data.labelled` can hide.
        padded: whether `recipe.augmentation.pad` acts on its images, where these are not streamed.
    """

    class Config(BaseConfig):
        """Keys of the `task:` block besides `name`."""

    name: str
    measures: ClassVar[tuple[Measure, ...]]
    columns: ClassVar[tuple[Column, ...]] = ()
    plain: ClassVar[str]
    parts: ClassVar[Mapping[str, str]]
    labelled: ClassVar[bool] = False
    padded: ClassVar[bool] = True
    config: Config

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else type(self).Config()

    @property
    def main(self) -> Measure:
        """What the main table shows."""
        return self.measures[0]

    def sections(self, cells: Iterable[Any]) -> list[Section]:
        """Tables of the task's own, below the main one: of the cells of a study that have runs.

        A cell has `pair`, `method` and its `label`, `runs` (what `Evaluation.measure` gave, by seed) and `facts`
        (objective, teachers, recipe, data; see `distillery.report.results.Cell`).
        """
        return []

    def part(self, name: str) -> Any:
        """Import one of the parts. Raises DistilleryError if it cannot be imported."""
        return self.component(name).get()

    def component(self, part: str) -> Component:
        """A part as the fingerprint of a job sees it."""
        module, _, attribute = self.parts[part].rpartition(":")
        return Component("part of task", self.name, module, attribute, "distillery.task:Task")

    def files(self, architecture: str) -> list[Path]:
        """The user's own files that a network of this architecture begins its training from."""
        return []

    def values(self) -> dict[str, Any]:
        """What the spec of a job says about its task."""
        return {"name": self.name} | self.config.effective()


def task_of(block: Mapping[str, Any]) -> Task:
    """Return the task of a block of name and options, or of a job's values.

    Raises DistilleryError naming an unknown task or option and the nearest.
    """
    kind = TASKS[block["name"]].load()
    options = {key: value for key, value in block.items() if key != "name"}
    task: Task = kind(kind.Config.read(options, "task."))
    task.name = block["name"]
    return task
