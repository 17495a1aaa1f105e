"""The main figure: differences to the baseline with their intervals, sorted, one panel per pair (a forest plot)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillery.report.figures.style import panels, plain, title_of
from distillery.report.results import Results
from distillery.report.table import Table
from distillery.report.verdicts import explained

COLOURS = {"better": "#0072B2", "worse": "#D55E00", None: "#7a8491"}
SHAPES = {"better": "^", "worse": "v", None: "o"}  # as in the table, so that nothing hangs on colours alone
LINE = 0.17  # inches per method
LONGEST = 34  # characters of a label; longer ones are cut


def caption(table: Table) -> str:
    """Explains no interval and no sign that the figure does not have: a single seed has neither."""
    entries = [entry for row in table.rows for entry in row.entries.values()]
    intervals = ", with 95 % intervals" if any(e.difference_ci95 is not None for e in entries) else ""
    marks = [e.mark for e in entries if e.p is not None]
    signs = f". {explained(marks, 'the baseline')} after correction" if marks else "; none was tested"
    return f"Differences to the baseline, paired by seed{intervals}, the best at the top{signs}."


def caption_of_improvement(table: Table) -> str:
    intervals = ", with 95 % intervals: a percentile bootstrap over runs, not corrected"
    shown = intervals if any(a.improvement_interval for a in table.aggregates) else ""
    return f"All pairs together: how likely a run beats one of the baseline's{shown}; no test."


def draw(results: Results, table: Table) -> Figure | None:
    """Best at the top, whichever direction is better; methods without a difference are left out."""
    shown = {
        column.pair: [row for row in table.rows if row.entries[column.pair].difference is not None]
        for column in table.columns
    }
    pairs = [pair for pair, rows in shown.items() if rows]
    if not pairs:
        return None
    figure, axes = _forest(table, [title_of(table, p) for p in pairs], [[r.label for r in shown[p]] for p in pairs])
    for pair, axis in zip(pairs, axes, strict=True):
        rows = sorted(shown[pair], key=lambda row: -table.measure.gain(row.entries[pair].difference or 0.0))
        for line, row in enumerate(rows):
            entry = row.entries[pair]
            axis.errorbar(
                entry.difference or 0.0,
                line,
                xerr=entry.difference_ci95,
                fmt=SHAPES[entry.mark],
                color=COLOURS[entry.mark],
                markersize=4.5,
                linewidth=1.2,
            )
        _finish(axis, [row.label for row in rows], 0.0)
        unit = table.measure.unit
        points = ", points" if unit == "%" else f", {unit}" if unit else ""
        axis.set_xlabel(f"difference to {plain(table.label(table.baseline))}{points}")
    return figure


def draw_improvement(results: Results, table: Table) -> Figure | None:
    """Of a study of several pairs, the methods over all of them. Nothing is tested here, so nothing is marked."""
    found = sorted(
        ((a.improvement, a) for a in table.aggregates if a.improvement is not None),
        key=lambda f: (-f[0], -table.measure.gain(f[1].iqm)),
    )
    if not found:
        return None
    labels = [a.label for _, a in found]
    figure, (axis,) = _forest(table, ["all pairs"], [labels])
    for line, (chance, a) in enumerate(found):
        axis.plot(a.improvement_interval or (chance, chance), [line, line], color=COLOURS[None], linewidth=1.2)
        axis.plot([chance], [line], color=COLOURS[None], marker=SHAPES[None], markersize=4.5)
    _finish(axis, labels, 0.5)
    axis.set_xlabel(f"probability of improvement on {plain(table.label(table.baseline))}")
    return figure


def _forest(table: Table, titles: list[str], labels: list[list[str]]) -> tuple[Figure, list[Axes]]:
    """A panel for each list of labels, with room for them on its left."""
    left = 0.3 + 0.066 * min(LONGEST, max(len(label) for each in labels for label in each))
    height = LINE * max(map(len, labels)) + 0.15
    figure, axes = panels(table, titles, 2.6, height, left=left, gap=left, keyed=False)
    for axis in axes:
        axis.set_ylim(max(map(len, labels)) - 0.4, -0.6)
    return figure, axes


def _finish(axis: Axes, labels: list[str], zero: float) -> None:
    axis.axvline(zero, color="#888888", linewidth=0.8, zorder=0)
    axis.set_yticks(
        range(len(labels)), [plain(label if len(label) <= LONGEST else f"{label[:33]}…") for label in labels]
    )
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=True, axis="x", alpha=0.25)
    axis.grid(visible=False, axis="y")
