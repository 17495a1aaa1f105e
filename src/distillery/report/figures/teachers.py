"""Students against what their teachers are: the accuracy of one, the calibration of the other."""

from __future__ import annotations

from operator import itemgetter

from matplotlib.figure import Figure

from distillery.report.figures.style import legend, look, panels
from distillery.report.results import Results
from distillery.report.table import Table

FEWEST = 3  # teachers, below which there is nothing to see
ASPECTS = (("top1", "teacher's test accuracy, %"), ("nll", "teacher's negative log-likelihood, nats"))


def caption(table: Table) -> str:
    spread = ": mean and standard deviation" if table.repeated else ""
    return f"Students against the accuracy and the log-likelihood of their teachers{spread}."


def draw(results: Results, table: Table) -> Figure | None:
    """A point for every pair of one student architecture, by the accuracy and by the log-likelihood of the teacher."""
    if results.task.main.name != "top1":
        return None
    found: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    for cell in results:
        teachers = list(cell.facts.get("teachers", {}).values())
        if cell.runs and len(teachers) == 1 and "nll" in teachers[0] and "top1" in teachers[0]["last"]:
            s = cell.summary(table.convention)
            if s.mean is not None:
                point = (teachers[0]["last"]["top1"], teachers[0]["nll"], s.mean, s.sd or 0.0)
                found.setdefault((cell.facts["architecture"], cell.method), []).append(point)
    students = dict.fromkeys(student for (student, _), points in found.items() if len(set(points)) >= FEWEST)
    if not students:
        return None
    figure, axes = panels(table, [student for student in students for _ in ASPECTS])
    styles = look(table)
    for i, student in enumerate(students):
        for j, (_, label) in enumerate(ASPECTS):
            axis = axes[2 * i + j]
            for (architecture, method), points in found.items():
                if architecture == student:
                    ordered = sorted(points, key=itemgetter(j))
                    values = [[p[k] for p in ordered] for k in (j, 2, 3)]
                    axis.errorbar(values[0], values[1], yerr=values[2], marker="o", **styles[method])
            axis.set_xlabel(label)
            axis.set_ylabel(results.task.main.axis)
    legend(figure, axes, table)
    return figure
