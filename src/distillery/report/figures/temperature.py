"""The temperature trend: methods that are the same but for the temperature."""

from __future__ import annotations

import json

from matplotlib.figure import Figure

from distillery.report.figures.style import COLOURS, legend, panels, title_of
from distillery.report.results import Results
from distillery.report.table import Table


def families(results: Results, pair: str) -> list[list[tuple[float, str]]]:
    """Groups of (temperature, method), two or more with a result, whose runs differ in nothing else."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for cell in results.column(pair):
        block = dict(cell.facts.get("objective", {}))  # as it was run, defaults filled in
        temperature = block.pop("temperature", None)
        if temperature is not None and cell.scores(results.study.tables.convention):
            same = json.dumps([block, cell.facts["recipe"]], sort_keys=True)
            groups.setdefault(same, []).append((float(temperature), cell.method))
    return [sorted(group) for group in groups.values() if len(group) > 1]


def draw(results: Results, table: Table) -> Figure | None:
    groups = {pair: found for pair in results.study.pairs if (found := families(results, pair))}
    if not groups:
        return None
    counts = {(e.pair, e.method): e for e in table.classwise}
    figure, axes = panels(table, [title_of(table, pair) for pair in groups], gap=1.4, right=0.6, widest=40)
    rights = [axis.twinx() for axis in axes]
    for pair, axis, right in zip(groups, axes, rights, strict=True):
        for group, colour in zip(groups[pair], COLOURS, strict=False):
            temperatures = [t for t, _ in group]
            summaries = [results.cells[pair, m].summary(table.convention) for _, m in group]
            label = results.study.methods[group[0][1]].objective
            means, spreads = [s.mean or 0.0 for s in summaries], [s.sd or 0.0 for s in summaries]
            axis.errorbar(temperatures, means, yerr=spreads, color=colour, marker="o", label=f"{label}: accuracy")
            for name, dash in (("sc", "--"), ("tc", ":")):
                values = [getattr(counts[pair, m], name) for _, m in group]
                if None not in values:
                    one = name == "tc" and counts[pair, group[0][1]].teachers < 2
                    count = "classes against this one teacher" if one else f"#{name.upper()}"
                    right.plot(temperatures, values, dash, color=colour, label=f"{label}: {count}")
        axis.set_xlabel("temperature")
        axis.set_ylabel(results.task.main.axis)
        right.set_ylabel("significant classes")
        right.grid(False)
        right.spines["right"].set_visible(True)
    legend(figure, [*axes, *rights], table)
    return figure
