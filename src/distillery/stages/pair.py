"""Stage `pair`: the hashes of the teacher and table that a pair uses.

Engines cannot look a pair's teacher up while they lay out their jobs. Runs depend on this small file instead: it
changes, and with it the runs, exactly when the pair's own teacher does.
"""

from __future__ import annotations

from pathlib import Path

from distillery import artifacts
from distillery.artifacts import StaleInput
from distillery.layout import Layout
from distillery.stages.record import describe, making
from distillery.study import Study


def run(study: Study, params: Path, pair: str) -> None:
    layout, teachers = Layout(study.study), study.pairs[pair].teachers
    inputs = [layout.teacher_record(t) for t in teachers] + [layout.table_record(t) for t in teachers]
    record = describe("pair", inputs, params, pair=pair)
    with making(layout, layout.pair(pair)):
        facts = {teacher: check_teacher(layout, teacher) for teacher in teachers}
        artifacts.write_json(layout.pair(pair), record | {"teachers": facts})


def check_teacher(layout: Layout, teacher: str) -> dict[str, str | None]:
    """Return the hashes of a teacher's weights and table. Raises StaleInput if they do not belong together."""
    weights, table = (
        artifacts.read_json(layout.teacher_record(teacher)),
        artifacts.read_json(layout.table_record(teacher)),
    )
    path = layout.teacher(teacher)
    found = artifacts.sha256_file(path)
    if found != weights["sha256"]:
        raise StaleInput(f"{path} is not the file its record describes: restore it, or delete it and train it again")
    if table["teacher_sha256"] != found:
        raise StaleInput(
            f"{layout.table(teacher)} was built from another teacher: run `distillery cache --teacher {teacher}`"
        )
    return {"weights": found, "table": table.get("sha256")}
