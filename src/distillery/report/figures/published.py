"""Paper versus ours."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from distillery.report.figures.style import COLOURS, OTHERS, legend, panels
from distillery.report.ledger import ABOVE, AGREES, BELOW, NOT_COMPARABLE
from distillery.report.results import Results
from distillery.report.table import Table


def draw(results: Results, table: Table) -> Figure | None:
    figure, (axis,) = panels(table, ["ours against published numbers"], width=3.8, height=3.8)
    ends: list[float] = []
    looks = {verdict: (colour, "full") for verdict, colour in zip((AGREES, ABOVE, BELOW), COLOURS, strict=False)}
    for verdict, (colour, fill) in ({NOT_COMPARABLE: (OTHERS, "none")} | looks).items():
        found = [c for c in table.published if c.verdict == verdict and c.mean is not None]
        if found:
            theirs, ours = [c.published.value for c in found], [c.mean or 0.0 for c in found]
            spreads: list[list[float] | None] = [None, None]  # of what was not tested, there is too much for bars
            if verdict != NOT_COMPARABLE:
                spreads = [[c.published.sd or 0.0 for c in found], [c.sd or 0.0 for c in found]]
            style: dict[str, Any] = {"fmt": "o", "color": colour, "fillstyle": fill, "markersize": 4, "linewidth": 0.8}
            axis.errorbar(theirs, ours, xerr=spreads[0], yerr=spreads[1], label=verdict, **style)
            ends += [*theirs, *ours]
    if not ends:
        return None
    axis.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#888888", linewidth=0.8)
    axis.set_xlabel(results.task.main.axis.replace("test", "published"))
    axis.set_ylabel(results.task.main.axis.replace("test", "our") + ", same convention")
    legend(figure, [axis], table)
    return figure
