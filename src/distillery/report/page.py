"""The report: one self-contained HTML page (no network), with the provenance of every number on click."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from distillery.report.figures import FIGURES
from distillery.report.provenance import cells, plain
from distillery.report.results import Results
from distillery.report.sections.section import MARKS, Section, Value
from distillery.report.table import Table

TEMPLATE = Path(__file__).with_name("page.html")
ABREAST = 2  # pairs beside whose table there is room for the main figure


def page(found: list[Section], results: Results, table: Table, record: dict[str, Any], figures: Path) -> str:
    """Lay out the sections, with the figures drawn in `figures` and the record of the `tables` stage."""
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    engine.filters["tails"] = _tails
    data = json.dumps(cells(results, table, record), sort_keys=True, ensure_ascii=False).replace("<", "\\u003c")
    by_name = {section.name: section for section in found}
    made = {"tables made on": record["environment"], "code": record["spec"]["code"], "spec": record["spec_sha256"]}
    return engine.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=table.title,
        trained=by_name["trained"],
        main=by_name["results"],
        folded=[section for section in found if section.name not in ("trained", "results")],
        abreast=len(table.columns) <= ABREAST,
        images={name: _image(figures / f"{name}.svg") for section in found for name in section.figures},
        captions={name: caption for name, (caption, _) in FIGURES.items()},
        marks=MARKS,
        environment=plain(made),
        data=data,
    )


def _image(path: Path) -> str:
    """A figure as an address, so that the identifiers of several SVGs cannot meet."""
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _tails(section: Section) -> list[int]:
    """The longest small print of every column: all of it takes that much room, so that the numbers line up."""
    columns: list[tuple[Value, ...]] = list(zip(*(line.values for line in section.rows), strict=True))
    return [max(len(value.tail) for value in column) for column in columns]
