"""The look that all figures share, panels per pair, and saving without anything that changes between runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillery.records.io import atomic_path
from distillery.report.table import Table

STYLE: Any = {
    "svg.hashsalt": "distillery",  # identifiers inside the file depend on its content alone
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
PAPER = {"font.sans-serif": ["STIXGeneral", "DejaVu Sans"], "pdf.fonttype": 42, "mathtext.fontset": "stix"}
# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vXP"  # of lines beyond as many as there are colours
TEACHER, OTHERS = "#888888", "#c8ccd2"
FEW = len(COLOURS)  # methods that lines can tell apart; of more, the best are shown in colour, and the others in grey
BEST = 4
COLUMNS = 3  # panels in a row, at most


def look(table: Table) -> dict[str, dict[str, Any]]:
    """Colour, label and order of every method, the same in all figures of a study.

    Of many methods the student alone, the baseline and the best (by their mean rank over the pairs) have colours.
    """
    rows = [row for row in table.rows if row.kind != "teacher"]
    shown = [row.name for row in rows]
    if len(shown) > FEW:
        first = [row.name for row in rows if row.kind == "alone" or row.name == table.baseline][:2]
        ranked = sorted((n for n in shown if n not in first), key=_ranks(table).__getitem__)
        shown = [n for n in shown if n in (*first, *ranked[:BEST])]
    colours = dict(zip(shown, COLOURS, strict=False))
    grey = {"color": OTHERS, "label": f"{len(rows) - len(shown)} other methods", "zorder": 1}
    return {
        row.name: {"color": colours[row.name], "label": plain(row.label), "zorder": 3} if row.name in colours else grey
        for row in rows
    }


def apart(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of every name, no two alike: beyond the colours the markers change."""
    pairs = ({"color": colour, "marker": marker} for marker in MARKERS for colour in COLOURS)
    return dict(zip(dict.fromkeys(names), cycle(pairs), strict=False))


def _ranks(table: Table) -> dict[str, float]:
    """The mean rank of every method over the pairs, 0 for the best; a method without a result is last."""
    ranks: dict[str, list[int]] = {}
    for column in table.columns:
        entries = {r.name: r.entries[column.pair].mean for r in table.rows if r.kind != "teacher"}
        gains = {n: -float("inf") if mean is None else table.measure.gain(mean) for n, mean in entries.items()}
        for rank, name in enumerate(sorted(gains, key=gains.__getitem__, reverse=True)):
            ranks.setdefault(name, []).append(rank)
    return {name: sum(found) / len(found) for name, found in ranks.items()}


def plain(label: str) -> str:
    """A label as matplotlib shows it unchanged: no formula between dollars, and not hidden for a leading underscore."""
    return ("\u200b" if label.startswith("_") else "") + label.replace("$", r"\$")


def panels(
    table: Table,
    titles: list[str],
    width: float = 3.5,
    height: float = 2.3,
    left: float = 0.65,
    gap: float = 0.75,
    right: float = 0.25,
    keyed: bool = True,
    widest: int = 0,
) -> tuple[Figure, list[Axes]]:
    """A grid of panels of the given size in inches, with room for a legend on the right if it is `keyed`.

    `widest`: characters of its longest label, if that is none of a method.

    Placed by hand: matplotlib's own layout measures every label, which takes longer than drawing a large study.
    """
    columns = min(COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    labels = legend_labels(table)
    across = (
        left + columns * width + (columns - 1) * gap + right + (legend_width([*labels, widest * " "]) if keyed else 0)
    )
    below, above = 0.55, 0.35
    down = max(rows * (below + height + above), 0.2 * len(labels) + 0.4 if keyed else 0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(across, down))
        axes = []
        for i, title in enumerate(titles):
            x = left + i % columns * (width + gap)
            y = down - (i // columns + 1) * (below + height + above) + below
            axis = figure.add_axes((x / across, y / down, width / across, height / down))
            axis.set_title(title, y=1.0)
            axis.xaxis.set_label_coords(0.5, -0.38 / height)
            axis.yaxis.set_label_coords(-0.45 / width, 0.5)
            axes.append(axis)
    return figure, axes


def legend_labels(table: Table) -> list[str]:
    return ["teacher", *dict.fromkeys(style["label"] for style in look(table).values())]


def legend_width(labels: list[str]) -> float:
    """Inches that a legend with these labels takes."""
    return 0.7 + 0.075 * max(map(len, labels))


def legend(figure: Figure, axes: list[Axes], table: Table) -> None:
    """One legend for all panels: every label once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    ordered = sorted(handles, key=lambda label: label.endswith(" other methods"))  # the last
    with matplotlib.rc_context(STYLE):
        figure.legend([handles[label] for label in ordered], ordered, loc="upper right", bbox_to_anchor=(1.0, 1.0))


def bars(table: Table) -> str:
    """What a caption says of error bars, where there are any."""
    return " (bars: one standard deviation)" if table.repeated else ""


def title_of(table: Table, pair: str) -> str:
    column = next(c for c in table.columns if c.pair == pair)
    return f"{column.teacher} → {table.student(column)}"


def save(figure: Figure, stem: Path) -> None:
    """Write a figure as SVG, for screens, and as PDF, for papers: without a date, the same bytes every time.

    Texts of the SVG stay text, so that no font needs to have all characters here; its background is white, since what
    shows it, such as a site with table.md, may be dark. The PDF embeds a font like Times, as papers have it, which is
    narrower, so that nothing runs into anything else.
    """
    for kind, style in (("svg", STYLE), ("pdf", STYLE | PAPER)):
        dates: dict[str, Any] = {"Date": None} if kind == "svg" else {"CreationDate": None}
        path = stem.with_name(f"{stem.name}.{kind}")
        with matplotlib.rc_context(style), atomic_path(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(temporary, format=kind, metadata=dates)
    figure.clear()  # a drawn figure is a ring of references: some MB each, for the collector to find later
