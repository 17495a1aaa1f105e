"""The report: one self-contained HTML page (no network), with the provenance of every number on click."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from distillery.errors import DistilleryError
from distillery.report.figures import PICTURES, captions
from distillery.report.provenance import cells, plain
from distillery.report.results import Results
from distillery.report.sections.section import MARKS, Section, Value
from distillery.report.table import Table

TEMPLATES = ("page.html", "parts.html")
PLACES = ("<!--more facts-->", "<!--more contents-->", "<!--more sections-->")  # in a written page, for `amended`
ONE_LINE, SOME_LINES = 30, 120  # characters of an entry in words that is not broken, and in a narrow column
PLAIN = " !$'()*+,-./:;=@[]_|~"  # what an address between double quotes may hold as it is
FONT = "font-family: 'DejaVu Sans', sans-serif; "
_UNUSED = re.compile(rf' transform="rotate\(-0 [-\d. ]+\)"| id="[\w.]+_\d+"|{FONT}')
ABREAST = 2  # pairs beside whose table there is room for the main figure


def page(found: list[Section], results: Results, table: Table, record: dict[str, Any], figures: Path) -> str:
    """Lay out the sections, with the figures drawn in `figures` and the record of the `tables` stage."""
    data = json.dumps(cells(results, table, record), sort_keys=True, ensure_ascii=False).replace("<", "\\u003c")
    by_name = {section.name: section for section in found}
    made = {"tables made on": record["environment"], "code": record["spec"]["code"], "spec": record["spec_sha256"]}
    template = _engine().get_template(TEMPLATES[0])
    return template.render(
        title=table.title,
        trained=by_name["trained"],
        main=by_name["results"],
        sections=[section for section in found if section.name not in ("trained", "results")],
        abreast=len(table.columns) <= ABREAST,
        images={name: _image(figures / f"{name}.svg") for section in found for name in section.figures},
        captions=captions(table),
        pictures=PICTURES,
        marks=MARKS,
        environment=plain(made),
        data=data,
    )


def amended(page: str, facts: list[tuple[str, str]], added: Section | None) -> str:
    """A written page with more (subject, text) on its first screen, and one more section, open, above the folded ones.

    Raises DistilleryError if the page is not one of this version.
    """
    if not all(place in page for place in PLACES):
        raise DistilleryError("the report was written by another version of Distillery: run the study again")
    more = ["".join(f"<dt>{escape(subject)}</dt><dd>{escape(text)}</dd>" for subject, text in facts), "", ""]
    if added is not None:
        parts: Any = _engine().get_template(TEMPLATES[1]).make_module({"marks": MARKS, "images": {}, "captions": {}})
        more[1] = f'<li><a href="#{added.name}">{escape(added.title)}</a></li>'
        more[2] = parts.folded(added, open=True)
    for place, text in zip(PLACES, more, strict=True):
        page = page.replace(place, text, 1)
    return page


def _engine() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    engine = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    engine.filters |= {"tails": _tails, "breaks": _breaks, "marked": _marked}
    return engine


class _Image(NamedTuple):
    address: str  # nothing in it means anything in HTML
    width: int  # pixels, at its natural size


def _image(path: Path) -> _Image:
    """A figure as an address, so that the identifiers of several SVGs cannot meet."""
    svg = path.read_text(encoding="utf-8")
    [points] = re.findall(r'<svg[^>]*? width="([\d.]+)pt"', svg[:2000])
    return _Image("data:image/svg+xml," + quote(_squeezed(svg), safe=PLAIN), round(float(points) * 4 / 3))


def _squeezed(svg: str) -> str:
    """The same picture in fewer bytes: without blanks, what matplotlib says of itself, and the font of every text."""

    def tag(found: re.Match[str]) -> str:
        text = _UNUSED.sub("", " ".join(found[0].split()))
        return text if "'" in text else text.replace('"', "'")  # which an address may hold as they are

    svg = re.sub(r">\s+<", "><", svg[svg.index("<svg") :])
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r"<[^>]*>", tag, svg).replace("*{", "*{" + FONT, 1)


def _columns(section: Section) -> list[tuple[Value, ...]]:
    return list(zip(*(line.values for line in section.rows), strict=True))


def _tails(section: Section) -> list[int]:
    """The longest small print of every column: all of it takes that much room, so that the numbers line up."""
    return [max(len(value.tail) for value in column) for column in _columns(section)]


def _marked(section: Section) -> list[bool]:
    """The columns with a mark, which all their numbers leave room for."""
    return [any(value.mark for value in column) for column in _columns(section)]


def _breaks(section: Section) -> list[str]:
    """Classes of the columns whose words are broken into lines; the others stay on one."""
    longest = [max(len(value.text) for value in column) for column in _columns(section)]
    return ["longest" if n > SOME_LINES else "long" if n > ONE_LINE else "" for n in longest]
