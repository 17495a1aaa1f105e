"""Stage `tables`: all metrics of the study become its result tables. The same metrics give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillery import artifacts
from distillery.layout import Layout
from distillery.reporting import comma_separated, latex, markdown, results, table
from distillery.stages.record import describe, making
from distillery.study import Study


def run(study: Study, params: Path) -> None:
    layout = Layout(study.study)
    files = layout.table_files()
    record = describe("tables", results.metrics_files(study), params)
    with making(layout, files["table"]):
        found = results.load(study, params)
        main = table.build(found)
        _write(files["markdown"], markdown.markdown(main))
        _write(files["csv"], comma_separated.cells(main))
        _write(files["latex"], latex.latex(main))
        _write(files["ledger"], comma_separated.ledger(main))
        artifacts.write_json(files["summary"], summary(main))
        artifacts.write_json(files["table"], {"record": record, "table": main.to_json()})


def summary(main: table.Table) -> dict[str, Any]:
    """Numbers only, by pair and method: what `dvc metrics show` and `dvc metrics diff` compare."""
    rows: dict[str, Any] = {}
    for column in main.columns:
        for row in main.rows:
            entry = row.entries[column.pair]
            numbers = {"top1": entry.mean, "sd": entry.sd, "n": entry.n}
            kept = {k: round(v, 4) for k, v in numbers.items() if v is not None}
            rows.setdefault(column.pair, {})[row.name] = kept
    return rows


def _write(path: Path, text: str) -> None:
    with artifacts.atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
