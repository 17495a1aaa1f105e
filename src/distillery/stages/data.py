"""Stage `data`: the source's canonical arrays and their record."""

from __future__ import annotations

from pathlib import Path

from distillery.data import prepare
from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records.job import describe, making
from distillery.study.model import Study


def run(study: Study, params: Path) -> None:
    layout = Layout(study.study)
    record = describe("data", [], params)
    with making(layout, layout.data):
        facts = prepare(study.data.source, study.data.options, layout.arrays.parent)
        artifacts.write_json(layout.data, record | facts)
