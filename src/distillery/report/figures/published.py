"""Paper versus ours."""

from __future__ import annotations

from matplotlib.figure import Figure

from distillery.report.figures.style import COLOURS, legend, panels
from distillery.report.ledger import ABOVE, AGREES, BELOW
from distillery.report.results import Results
from distillery.report.table import Table


def draw(results: Results, table: Table) -> Figure | None:
    figure, (axis,) = panels(table, ["ours against published numbers"], width=3.8, height=3.8)
    ends: list[float] = []
    for verdict, colour in zip((AGREES, ABOVE, BELOW), COLOURS, strict=False):
        for c in table.published:
            if c.verdict == verdict and c.mean is not None:
                theirs = c.published
                axis.errorbar(
                    theirs.value, c.mean, xerr=theirs.sd, yerr=c.sd, fmt="o", color=colour, label=verdict, markersize=4
                )
                ends += [c.published.value, c.mean]
    if not ends:
        return None
    axis.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#888888", linewidth=0.8)
    axis.set_xlabel(results.task.main.axis.replace("test", "published"))
    axis.set_ylabel(results.task.main.axis.replace("test", "our") + ", same convention")
    legend(figure, [axis], table)
    return figure
