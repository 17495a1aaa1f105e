"""The report as GitHub-flavoured Markdown: every section, with its figures beside the file."""

from __future__ import annotations

import re

from distillery.report.sections.section import Head, Line, Section, Value

_ENTITY = re.compile(r"&#?\w+;")
_LIST = re.compile(r"^(\d*)([.)+-](?:\s|$))")


def markdown(found: list[Section], captions: dict[str, str]) -> str:
    """All sections, the main table first; `captions` by the name of the figure."""
    first = [s for s in found if s.name == "results"]
    return "\n".join(line for s in (*first, *(s for s in found if s not in first)) for line in _section(s, captions))


def _section(section: Section, captions: dict[str, str]) -> list[str]:
    main = section.name == "results"
    parts: list[list[str]] = [[f"{'##' if main else '###'} {escape(section.title)}"]]
    if section.lead:
        parts.append([escape(section.lead)])
    kept = [line for line in section.rows if line.kind != "aside"]
    if len(kept) < len(section.rows):
        parts.append(["What cannot be compared, and why, is in ledger.csv."])
    if kept and any(head.text for head in section.header):
        parts.append(_grid(section.header, kept))
    elif kept:
        parts.append([f"- {escape(subject.text)}: {escape(text.text)}" for subject, text in (r.values for r in kept)])
    if notes := (*section.notes, *section.footnotes):
        parts.append([f"- {escape(note)}" for note in notes])
    if section.warnings:
        parts += [["Missing runs:"], [f"- {escape(line.removeprefix('Missing: '))}" for line in section.warnings]]
    parts += [[f"![{escape(captions[name])}](figures/{name}.svg)"] for name in section.figures]
    return [line for part in parts for line in (*part, "")]


def _grid(header: tuple[Head, ...], rows: list[Line]) -> list[str]:
    lines = [[escape(" ".join(head.text.split("\n"))) for head in header], *([*map(_value, r.values)] for r in rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(header))]
    rule = ["-" * (w - 1) + ":" if head.number else "-" * w for head, w in zip(header, widths, strict=True)]
    return [_pipe(line, widths, header) for line in (lines[0], rule, *lines[1:])]


def _pipe(cells: list[str], widths: list[int], header: tuple[Head, ...]) -> str:
    padded = [c.rjust(w) if h.number else c.ljust(w) for c, w, h in zip(cells, widths, header, strict=True)]
    return "| " + " | ".join(padded) + " |"


def _value(value: Value) -> str:
    text = escape(value.plain)
    if value.strong:
        text = text.replace(value.score, f"**{value.score}**", 1)
    links = "".join(f" [{i}]({url})" for i, url in enumerate(value.link.split(), 1))
    return text + (f"<sup>{value.note}</sup>" if value.note else "") + links


def escape(text: str) -> str:
    """Escape plain text for Markdown, also where it begins a line: `1. `, `+ ` or `- ` would make a list."""
    text = "".join(
        "\\" + c if c in "\\|*_`<>[]~$#" or (c == "&" and _ENTITY.match(text, i)) else c for i, c in enumerate(text)
    )
    return _LIST.sub(r"\1\\\2", text)
