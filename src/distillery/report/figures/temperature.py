"""The temperature trend: methods that are the same but for the temperature."""

from __future__ import annotations

from itertools import chain
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distillery.evaluation.families import labels, parts, place
from distillery.report.figures.style import apart, bars, legend, panels, plain, title_of
from distillery.report.results import Results
from distillery.report.table import Table

AGAINST_ONE = "classes against this one teacher"


def families(results: Results, pair: str) -> list[list[tuple[float, str]]]:
    """Groups of (temperature, method), two or more with a result, whose runs differ in nothing else."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for cell in results.column(pair):
        if cell.scores(results.study.tables.convention) and (at := place(cell)):
            same, temperature = at
            groups.setdefault(same, []).append((temperature, cell.method))
    return [sorted(group) for group in groups.values() if len(group) > 1]


def labelled(results: Results) -> dict[str, list[tuple[str, list[tuple[float, str]]]]]:
    """By pair that has some, its families with their labels, which tell them apart in every pair."""
    groups = {pair: found for pair in results.study.pairs if (found := families(results, pair))}
    firsts = {pair: [results.cells[pair, group[0][1]] for group in found] for pair, found in groups.items()}
    names = labels([[(parts(cell), cell.label) for cell in cells] for cells in firsts.values()])
    return {pair: list(zip(n, groups[pair], strict=True)) for pair, n in zip(groups, names, strict=True)}


def caption(table: Table) -> str:
    said = f"Methods that differ in the temperature alone: the main measure{bars(table)}"
    return f"{said} and, of classifiers, significant classes."


def draw(results: Results, table: Table) -> Figure | None:
    """The main measure of every family; of classifiers also the significant classes, on an axis at the right."""
    groups = labelled(results)
    if not groups:
        return None
    counts = {(e.pair, e.method): e for e in table.classwise}  # of cells whose runs know classes
    looks = apart(label for label, _ in chain.from_iterable(groups.values()))
    widest = max(len(f"{name}: {AGAINST_ONE}") for name in looks)
    figure, axes = panels(table, [title_of(table, pair) for pair in groups], gap=1.4, right=0.6, widest=widest)
    rights = [axis.twinx() for axis in axes]
    for pair, axis, right in zip(groups, axes, rights, strict=True):
        for name, group in groups[pair]:
            temperatures, look, label = [t for t, _ in group], looks[name], plain(name)
            summaries = [results.cells[pair, m].summary(table.convention) for _, m in group]
            means, spreads = [s.mean or 0.0 for s in summaries], [s.sd or 0.0 for s in summaries]
            score = f"{label}: {results.task.main.label}"
            axis.errorbar(temperatures, means, yerr=spreads, label=score, **look)
            for kind, dash in (("sc", "--"), ("tc", ":")):
                values: list[Any] = [getattr(counts.get((pair, m)), kind, None) for _, m in group]
                if None not in values:
                    one = kind == "tc" and counts[pair, group[0][1]].teachers < 2
                    count = AGAINST_ONE if one else f"#{kind.upper()}"
                    right.plot(temperatures, values, linestyle=dash, label=f"{label}: {count}", **look)
        axis.set_xlabel("temperature")
        axis.set_ylabel(results.task.main.axis)
        right.set_ylabel("significant classes")
        right.grid(False)
        right.spines["right"].set_visible(True)
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_ylim(bottom=-0.3, top=max(right.get_ylim()[1], 2.3))  # counts; where all are 0 too
        right.set_visible(bool(right.lines))
    legend(figure, [*axes, *rights], table)
    return figure
