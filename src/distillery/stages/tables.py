"""Stage `tables`: all metrics of the study become its tables, figures and report. Same metrics, same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from distillery.pipeline.current import Judge
from distillery.pipeline.job import Plan
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.report import comma_separated, latex, markdown, measures, results, table
from distillery.report.figures import captions, curves, draw_all
from distillery.report.page import page
from distillery.report.sections import sections
from distillery.study.model import Study


def run(work: Work) -> None:
    files = work.job.outputs
    study = Study.model_validate({key: value for key, value in work.job.values.items() if key in Study.model_fields})
    with work.making():
        found = results.load(study, Judge(Plan.read(work.job.study)))
        main = table.build(found)
        drawn = _draw(found, main, files["figures"])
        told = sections(found, main, drawn)
        _write(files["markdown"], markdown.markdown(told, captions(main)))
        _write(files["csv"], comma_separated.cells(main))
        _write(files["latex"], latex.latex(told, main.study))
        _write(files["report"], page(told, found, main, work.head, files["figures"]))
        _write(files["runs"], comma_separated.rows(measures.columns(found.task), measures.by_run(found)))
        _write(files["curves"], comma_separated.rows(curves.COLUMNS, curves.points(found)))
        _write(files["ledger"], comma_separated.ledger(main))
        artifacts.write_json(files["summary"], summary(main))
        work.write(table=main.to_json() | {"sections": [section.to_json() for section in told]})


def _draw(found: results.Results, main: table.Table, folder: Path) -> list[str]:
    """Draw all figures beside the folder and swap it in, so that no figure of an earlier study stays."""
    with artifacts.scratch(folder) as temporary:
        temporary.mkdir()
        drawn = draw_all(found, main, temporary)
        artifacts.void(folder)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    return drawn


def summary(main: table.Table) -> dict[str, Any]:
    """Numbers only, by pair and method: what `dvc metrics show` and `dvc metrics diff` compare.

    With two decimals more than the tables, so that a change shows here before it does there.
    """
    rows: dict[str, Any] = {}
    for column in main.columns:
        for row in main.rows:
            entry = row.entries[column.pair]
            numbers = {main.measure.name: entry.mean, "sd": entry.sd, "n": entry.n}
            kept = {k: round(v, main.measure.digits + 2) for k, v in numbers.items() if v is not None}
            rows.setdefault(column.pair, {})[row.name] = kept
    return rows


def _write(path: Path, text: str) -> None:
    with artifacts.atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
