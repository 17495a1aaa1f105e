"""Stage `pair`: the hashes of the teacher and table that a pair uses.

Engines cannot look a pair's teacher up while they lay out their jobs. Runs depend on this small file instead: it
changes, and with it the runs, exactly when the pair's own teacher does.
"""

from __future__ import annotations

from pathlib import Path

from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records.job import describe, making
from distillery.study.model import Study
from distillery.teachers.pair import check_teacher


def run(study: Study, params: Path, pair: str) -> None:
    layout, teachers = Layout(study.study), study.pairs[pair].teachers
    inputs = [layout.teacher_record(t) for t in teachers] + [layout.table_record(t) for t in teachers]
    record = describe("pair", inputs, params, pair=pair)
    with making(layout, layout.pair(pair)):
        facts = {teacher: check_teacher(layout, teacher) for teacher in teachers}
        artifacts.write_json(layout.pair(pair), record | {"teachers": facts})
