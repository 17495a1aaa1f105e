"""Where every cell comes from, as data for the report: runs, jobs with the hashes of their inputs, recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillery.pipeline.layout import Layout
from distillery.report import glossary, measures
from distillery.report.results import Cell, Results
from distillery.report.sections.published import PUBLISHED, published_values
from distillery.report.table import Table
from distillery.report.text import MISSING
from distillery.task import Column


def plain(value: dict[str, Any]) -> str:
    """Readable text of JSON-like data."""
    return "\n".join(_lines(value))


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    for key, item in sorted(value.items()):
        if isinstance(item, dict) and item:
            yield f"{indent}{key}:"
            yield from _lines(item, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(item, ensure_ascii=False) if not isinstance(item, str) else item}"


class _Pool:
    """Texts that many cells share are kept once and referred to by number."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def add(self, value: Any) -> int:
        return self.texts.setdefault(plain(value), len(self.texts))


def cells(results: Results, table: Table, record: dict[str, Any]) -> dict[str, Any]:
    """Everything that the page shows on click, by "pair method"."""
    recipes, environments = _Pool(), _Pool()
    columns = _run_columns(results)
    found = {f"{c.pair} {c.method}": _cell(c, results, table, columns, recipes) for c in results}
    for c in results:
        found[f"{c.pair} {c.method}"]["jobs"] = _jobs(c, table, record, environments)
    found |= {f"{pair} teacher": _teacher(results, pair) for pair in results.study.pairs}
    return {
        "cells": found,
        "run_columns": ["seed", *(column.name.replace("_", " ") for column in columns)],
        "published_columns": [head.text for head in PUBLISHED],
        "recipes": list(recipes.texts),
        "environments": list(environments.texts),
    }


def _run_columns(results: Results) -> list[Column]:
    """What the dialog says of every run: the main measure under every convention, then a few of the shown ones."""
    main = results.task.main.name
    every = measures.measured(results.task)
    conventions = [c for c in every if c.name == "epoch_test_best" or c.name.startswith(f"{main}_")]
    return conventions + [c for c in results.task.columns if c.name in ("nll", "ece", "agreement")]


def _cell(cell: Cell, results: Results, table: Table, columns: list[Column], recipes: _Pool) -> dict[str, Any]:
    """What a reader wants first: the method and its formula's origin, the recipe, the runs, the published numbers."""
    facts, method = cell.facts, results.study.methods[cell.method]
    compared = [c for c in table.published if (c.pair, c.method) == (cell.pair, cell.method)]
    return {
        "title": f"{table.label(cell.method)}, {cell.pair}",
        "about": [part.about for part in glossary.parts(method)],
        "basis": glossary.basis(method),
        "runs": [[str(seed), *(_short(column.of(run)) for column in columns)] for seed, run in cell.runs.items()],
        "missing": [f"Seed {seed} is missing: {why}" for seed, why in cell.missing.items()],
        "published": [[value.plain for value in published_values(table, c)] for c in compared],
        "objective": plain(facts["objective"]) if facts else "",
        "recipe": recipes.add(facts["recipe"]) if facts else 0,
        "cost": plain(facts["cost"] | {"macs": facts["macs"]}) if facts else "",
    }


def _jobs(cell: Cell, table: Table, record: dict[str, Any], environments: _Pool) -> list[dict[str, Any]]:
    layout = Layout(table.study)
    return [
        {
            "seeds": job["seeds"],
            "file": path,
            "volatile": str(layout.provenance(Path(path))),
            "sha256": record["inputs"].get(path, ""),
            "environment": environments.add(job["environment"]),
            **{key: job[key] for key in ("code", "spec", "inputs")},
        }
        for path, job in cell.jobs.items()
    ]


def _teacher(results: Results, pair: str) -> dict[str, Any]:
    teachers = results.first(pair).get("teachers", {})
    facts = {
        name: {
            key: t[key] for key in ("architecture", "parameters", "macs", "last", "test_best", "trained") if key in t
        }
        for name, t in teachers.items()
    }
    empty: dict[str, Any] = {"runs": [], "missing": [], "published": [], "jobs": [], "about": []}
    return empty | {"title": f"Teacher, {pair}", "facts": plain(facts)}


def _short(value: Any) -> str:
    return MISSING if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
