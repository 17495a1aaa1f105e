"""How much of a page a table takes in LaTeX, and tables of words: what the methods are, and their settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from distillery.report.sections.section import Line, Section
from distillery.report.tex import escape

PAGE, COLUMN, HEIGHT = 345.0, 200.0, 520.0  # pt: widths of the text, and the height of a page less its rules
EM, ROW, CAPTION = 4.9, 9.8, 12.0  # pt: a letter, a line, a line of a caption
HEADS = 4  # lines that the head of a table and its rules take
WIDTHS = {"method": 60.0, "what it is": 112.0, "formula": 50.0, "settings": 98.0}  # pt of the columns of a paper


class Typeset(NamedTuple):
    """A table in LaTeX, and its height in pt."""

    text: str
    height: float


def lines(text: str, width: float) -> int:
    """How many lines a text takes that is broken at so many pt."""
    return max(1, math.ceil(len(text) * EM / width))


def split(rows: Sequence[Line], heights: list[int], caption: str, width: float) -> list[tuple[list[Line], int]]:
    """Rows in parts that fit a page under a caption, each with the lines that it takes."""
    most = int((HEIGHT - lines(caption, width) * CAPTION) / ROW) - HEADS
    parts: list[tuple[list[Line], int]] = []
    for row, height in zip(rows, heights, strict=True):
        if not parts or parts[-1][1] + height > most:
            parts.append(([], 0))
        parts[-1] = ([*parts[-1][0], row], parts[-1][1] + height)
    return parts


def of_words(section: Section) -> tuple[list[Typeset], list[str], float]:
    """The tables of a section in words, of the columns that a paper takes; what is said below them; their width."""
    names = [head.text for head in section.header]
    columns = [(names.index(name), width) for name, width in WIDTHS.items()]
    heights = [max(lines(row.values[i].text, width) for i, width in columns) for row in section.rows]
    spec = "".join(f">{{\\raggedright\\arraybackslash}}p{{{width:g}pt}}" for _, width in columns)
    head = " & ".join(escape(name.capitalize()) for name in WIDTHS)
    tables = []
    for rows, height in split(section.rows, heights, section.caption, PAGE):
        told = [" & ".join(escape(row.values[i].text) for i, _ in columns) for row in rows]
        text = "\n".join(
            [
                f"\\begin{{tabular}}{{@{{}}{spec}@{{}}}}\n\\toprule\n{head} \\\\\n\\midrule",
                *(f"{line} \\\\" for line in told),
                "\\bottomrule\n\\end{tabular}\\par\\smallskip",
            ]
        )
        tables.append(Typeset(text, (height + HEADS) * ROW))
    return tables, list(section.notes), sum(WIDTHS.values())
