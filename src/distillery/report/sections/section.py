"""What a section is, free of any format: a table of values, notes, and the names of its figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

MARKS = {"better": "▲", "worse": "▼"}


@dataclass(frozen=True)
class Value:
    """One entry of a row: a number as it is printed, or words.

    Attributes:
        text: the number, or the words.
        spread: what follows a plus-minus sign.
        tail: what follows in small print: the number of runs, a p value, an interval.
        mark: "better" or "worse" than the baseline.
        strong: set in bold.
        sort: what a table is sorted by.
        aside: the difference to the baseline, where there is no other place for it (on a terminal).
        cell: whose provenance a click shows.
        link: addresses, separated by spaces.
        note: signs after a label, which refer to the notes.
    """

    text: str
    spread: str = ""
    tail: str = ""
    mark: str = ""
    strong: bool = False
    sort: float | str | None = None
    aside: str = ""
    cell: str = ""
    link: str = ""
    note: str = ""

    @property
    def score(self) -> str:
        return f"{self.text} ± {self.spread}" if self.spread else self.text

    @property
    def plain(self) -> str:
        """All of it but note and aside, as text."""
        return f"{self.score}{self.tail}" + (f" {MARKS[self.mark]}" if self.mark else "")


@dataclass(frozen=True)
class Head:
    """A column: its title (of two lines for a pair), and whether it holds numbers."""

    text: str
    number: bool = True


@dataclass(frozen=True)
class Line:
    """A row. `kind`: "teacher", "alone", "method", or "" where it makes no difference."""

    values: tuple[Value, ...]
    kind: str = ""


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        name: its key, and its anchor on the page.
        lead: a sentence before the table.
        notes: below the table.
        footnotes: what the signs after labels refer to.
        warnings: what is missing.
        figures: names of the figures that belong to it.
        caption: what a paper's caption says, for a table that a paper takes (LaTeX).
    """

    name: str
    title: str
    header: tuple[Head, ...] = ()
    rows: tuple[Line, ...] = ()
    lead: str = ""
    notes: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    caption: str = ""

    def to_json(self) -> dict[str, Any]:
        """Without what is at its default: a large study has thousands of values."""
        rows = [{"kind": line.kind, "values": [_brief(value) for value in line.values]} for line in self.rows]
        return asdict(self) | {"rows": rows}


def _brief(value: Value) -> dict[str, Any]:
    return {f.name: v for f in fields(value) if (v := getattr(value, f.name)) != f.default}


def words(*texts: str) -> tuple[Value, ...]:
    return tuple(Value(text, sort=text) for text in texts)
