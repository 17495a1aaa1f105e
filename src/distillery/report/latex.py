"""The tables for a paper, in LaTeX with booktabs and siunitx: a file that `\\input` takes, and that compiles by itself.

Pairs are groups of columns: as many side by side as a page is wide (345 pt, the text of article), the others below, and
on further pages what one page cannot hold, rows and notes too. A table that is no wider than a column of a two-column
article is a `table`, others are a `table*`, which in a one-column document is the same. Nothing is scaled.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distillery.report.latex_words import CAPTION, COLUMN, EM, HEADS, HEIGHT, PAGE, ROW, Typeset, lines, of_words, split
from distillery.report.sections.section import Line, Section, Value
from distillery.report.tex import BEYOND, PREAMBLE, escape
from distillery.report.text import MINUS, MISSING

DIGIT, SMALL, GAP = 4.3, 4.0, 9.5  # pt: digit, small digit, between groups
LONGEST = 13  # characters of a network's name above a column; a longer one gets a letter, and a key below
WIDEST = 110.0  # pt of the first column; longer labels are broken
MISSED = 8  # lines about missing runs; table.md has all of them
_NUMBER = re.compile(rf"([+{MINUS}-]?)(\d+)(?:\.(\d+))?")
_MARKS = {"better": r"$^{\uparrow}$", "worse": r"$^{\downarrow}$", "": ""}
BOLD = "\\bfseries "
_FAMILY = re.compile(r"^(?:timm/|torchvision/|imagenet_)")
HEAD = r"""% \usepackage{booktabs,siunitx} and \input this file, or compile it as it is.
\let\distilleryend\relax
\expandafter\ifx\csname @nodocument\endcsname\relax\else
  \documentclass{article}\usepackage{booktabs,siunitx}\begin{document}\def\distilleryend{\end{document}}
\fi"""


@dataclass(frozen=True)
class Group:
    """The columns of one pair: its number in the rows, the titles above it, its number format, its width in pt."""

    index: int
    titles: list[str]
    format: str
    width: float


def latex(found: list[Section], name: str) -> str:
    """The sections that a paper takes. `name` of the study: the label is `tab:NAME`.

    It compiles with pdflatex, XeLaTeX and LuaLaTeX, whatever the labels hold; `tex` says how.
    """
    floats = [text for section in found if section.caption for text in _floats(section, name)]
    text = "\n".join([HEAD, *floats, r"\distilleryend"]) + "\n"
    return "\n".join([*PREAMBLE, text]) if BEYOND in text else text


def _floats(section: Section, name: str) -> Iterator[str]:
    numbers = any(head.number for head in section.header)
    tables, notes, width = _of_numbers(section) if numbers else of_words(section)
    wide = width > COLUMN
    environment, label = f"table{'*' * wide}", f"tab:{name}" + ("" if section.name == "results" else f"-{section.name}")
    pages = _pages(section.caption, tables, notes, PAGE if wide else COLUMN)
    for n, (bodies, told) in enumerate(pages):
        more = f" ({n + 1} of {len(pages)})" if len(pages) > 1 else ""
        caption = escape((section.title if n else section.caption) + more)
        yield f"\\begin{{{environment}}}\n\\centering\\footnotesize\\setlength{{\\tabcolsep}}{{4pt}}"
        yield "\\sisetup{detect-weight=true,mode=text}"
        yield f"\\caption{{{caption}}}\n\\label{{{label}{f'-{n + 1}' if n else ''}}}"
        yield from bodies
        if told:
            yield "\\par\\smallskip\\raggedright"
            yield from (f"{escape(note)}\\par" for note in told)
        yield f"\\end{{{environment}}}"


def _pages(caption: str, tables: list[Typeset], notes: list[str], width: float) -> list[tuple[list[str], list[str]]]:
    """What each page holds: as many tables as there is room for, and the notes, on the last or on one of their own."""
    pages: list[tuple[list[str], list[str]]] = []
    room = 0.0
    for table in tables:
        if not pages or table.height > room:
            room = HEIGHT - (0.0 if pages else lines(caption, width) * CAPTION)
            pages.append(([], []))
        pages[-1][0].append(table.text)
        room -= table.height
    for note in notes:
        height = lines(note, width) * ROW
        if height > room:
            room = HEIGHT
            pages.append(([], []))
        pages[-1][1].append(note)
        room -= height
    return pages


def _of_numbers(section: Section) -> tuple[list[Typeset], list[str], float]:
    """The tables of a section of numbers, what is said below the last of them, and how wide they are."""
    keys: dict[str, str] = {}
    usual = _usual(section.rows)
    groups = [_group(section, i, usual, keys) for i in range(1, len(section.header))]
    labels = [len(r.values[0].text) + len(r.values[0].note) for r in section.rows] + [len("Teacher")]
    first = min(WIDEST, max(labels) * EM)
    blocks: list[list[Group]] = []
    for group in groups:
        if not blocks or first + sum(g.width for g in blocks[-1]) + group.width > PAGE:
            blocks.append([])
        blocks[-1].append(group)
    column = "l" if max(labels) * EM <= WIDEST else f">{{\\raggedright\\arraybackslash}}p{{{WIDEST:g}pt}}"
    width = first + max(sum(g.width for g in block) for block in blocks)
    heights = [lines(r.values[0].text, WIDEST) for r in section.rows]
    parts = split(section.rows, heights, section.caption, PAGE if width > COLUMN else COLUMN)
    tables = [
        Typeset("\n".join(_tabular(section, rows, block, column, usual)), (height + HEADS) * ROW)
        for rows, height in parts
        for block in blocks
    ]
    signs = ["; ".join(f"{sign}: {long}" for long, sign in keys.items())] if keys else []
    missing = section.warnings[:MISSED]
    rest = len(section.warnings) - len(missing)
    more = [f"Missing: {rest} more, listed in table.md"] if rest else []
    return tables, [*signs, *section.footnotes, *missing, *more], width


def _usual(rows: tuple[Line, ...]) -> str:
    """The number of runs that most entries have: the caption says it, and only others are printed."""
    tails = Counter(
        v.tail for r in rows if r.kind != "teacher" for v in r.values[1:] if re.fullmatch(r" \(\d+\)", v.tail)
    )
    return tails.most_common(1)[0][0] if tails else ""


def _group(section: Section, i: int, usual: str, keys: dict[str, str]) -> Group:
    titles = section.header[i].text.split("\n")
    if len(titles) > 1:
        titles = [_short(part.removeprefix("→ "), keys) for part in titles]
    values = [line.values[i] for line in section.rows]
    numbers = [found for v in values if (found := _NUMBER.fullmatch(v.text))]
    whole = max((len(found[2]) for found in numbers), default=1)
    places = max((len(found[3] or "") for found in numbers), default=0)
    sign = "+" if any(found[1] for found in numbers) else ""
    number = (whole + places + 0.6 * bool(places) + 1.6 * bool(sign)) * DIGIT
    after = max((_after_width(v, usual, line.kind) for v, line in zip(values, section.rows, strict=True)), default=0.0)
    width = max(number + after, *(len(title) * DIGIT for title in titles)) + GAP
    return Group(i, titles, f"{sign}{whole}.{places}", width)


def _after_width(value: Value, usual: str, kind: str) -> float:
    spread = (len(value.spread) + 1) * SMALL if value.spread else 0.0
    return spread + len(_tail(value, usual, kind)) * SMALL + (5.0 if value.mark else 0.0)


def _tail(value: Value, usual: str, kind: str) -> str:
    return "" if value.tail == usual or kind == "teacher" else value.tail


def _short(name: str, keys: dict[str, str]) -> str:
    """A network's name as it fits above a column: without its origin, or a letter that the key below explains."""
    short = _FAMILY.sub("", name).partition(".")[0]
    if len(short) <= LONGEST and short == name:
        return name
    if name not in keys:
        taken = len(keys)
        keys[name] = short if len(short) <= LONGEST and short not in keys.values() else _letter(taken)
    return keys[name]


def _letter(i: int) -> str:
    return chr(ord("A") + i % 26) * (1 + i // 26)


def _tabular(section: Section, rows: Sequence[Line], block: list[Group], column: str, usual: str) -> Iterator[str]:
    spec = "".join(f"S[table-format={g.format}]@{{\\hskip 1pt}}l" for g in block)
    yield f"\\begin{{tabular}}{{@{{}}{column}{spec}@{{}}}}\n\\toprule"
    heights = max(len(g.titles) for g in block)
    for level in range(heights):
        name = ("Teacher", "Student")[level] if heights == 2 else section.header[0].text.capitalize()
        yield _line([name, *(f"\\multicolumn{{2}}{{c}}{{{escape(g.titles[level])}}}" for g in block)])
    yield "\\midrule"
    kind = rows[0].kind
    for line in rows:
        if (line.kind == "method") != (kind == "method"):
            yield "\\midrule"
        kind = line.kind
        first = line.values[0]
        note = f"\\textsuperscript{{{escape(first.note)}}}" if first.note else ""
        yield _line([escape(first.text) + note, *(_entry(line.values[g.index], usual, kind) for g in block)])
    yield "\\bottomrule\n\\end{tabular}\\par\\smallskip"


def _entry(value: Value, usual: str, kind: str) -> str:
    if value.text == MISSING or not (found := _NUMBER.fullmatch(value.text)):
        return f"\\multicolumn{{2}}{{c}}{{{escape(value.text + _tail(value, usual, ''))}}}"
    number = found[0].replace(MINUS, "-")
    tail = _tail(value, usual, kind)
    small = (f"$\\pm${value.spread}" if value.spread else "") + escape(f"\u2009{tail.strip()}" if tail else "")
    after = f"{{\\scriptsize{small}}}" if small else ""
    return f"{BOLD if value.strong else ''}{number} & {after}{_MARKS[value.mark]}"


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
