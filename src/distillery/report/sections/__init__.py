"""The report, free of any format: a list of sections, each with a table, notes and the names of its figures.

`sections` is the one place that says what is reported. The renderers (markdown, latex, page) are functions of what it
returns, and `table.json` keeps it for programs. The terminal makes its sections of the table in that file, so that a
clone can show them without the measurements, whatever version wrote it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from distillery.report.results import Results
from distillery.report.sections import comparison, measures, methods, published
from distillery.report.sections.section import Section
from distillery.report.table import Table


def sections(results: Results, table: Table, drawn: Collection[str] = ()) -> list[Section]:
    """Everything that is reported about a study, in the order of reading; what it has nothing to show in is left out.

    `drawn`: the figures that there are.
    """
    found = [
        methods.trained(results, table),
        comparison.main(table, comparison.caption(results, table)),
        comparison.differences(table),
        comparison.aggregates(table),
        published.published(table),
        Section("curves", "Learning curves", figures=("curves",)),
        Section("cost", "Cost and temperature", figures=("cost", "temperature")),
        measures.others(results, table),
        measures.classwise(table),
        *measures.of_task(results),
        methods.methods(results, table),
    ]
    named = {name for section in found for name in section.figures}
    found.append(Section("figures", "More figures", figures=tuple(name for name in drawn if name not in named)))
    found = [replace(s, figures=tuple(name for name in s.figures if name in drawn)) for s in found]
    return [section for section in found if section.rows or section.figures]
