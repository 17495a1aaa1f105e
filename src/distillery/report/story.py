"""What was trained, in words: what the first screen of the page, the table's notes and its caption in a paper say."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from distillery.data import SOURCES
from distillery.models import is_formula
from distillery.report.budget import called, compared, said
from distillery.report.notes import ranges
from distillery.report.recipes import described, precision_of
from distillery.report.results import Results
from distillery.report.table import Table, alike
from distillery.report.text import counted, listed, number

SPLITS = ("train", "val", "test")
_NOT_SHOWN = ("source", "path", "archive", "mirror", "root")  # where the files lie is not what they hold


def trained(results: Results, table: Table) -> list[tuple[str, str]]:
    """What a co-author asks first: (subject, sentence). Nothing is said of what was not measured yet."""
    study, facts = results.study, results.first()
    told = [("Data", data(results))]
    if facts.get("teachers"):
        told.append(("Teachers", _teachers(results, table)))
    students = list(dict.fromkeys(pair.student for pair in study.pairs.values()))
    told.append(("Students", f"{listed(students)}; {counted(len(study.pairs), 'pair')} of teacher and student"))
    told.append(("Protocol", protocol(results)))
    if facts:
        told.append(("Budget", _budget(results)))
    seeds = {seed for cell in results for seed in cell.expected}
    runs = f"{sum(len(cell.runs) for cell in results):,} of {counted(len(study.runs()), 'run')} measured"
    methods = counted(len(study.methods), "method")
    told.append(("Runs", f"{methods}, {counted(len(seeds), 'seed')} ({listed(ranges(seeds))}): {runs}"))
    told.append(("Command", "snakemake --cores all, or dvc repro, with this study's params.yaml"))
    return told


def data(results: Results) -> str:
    """The data set, its size, and how it was selected from."""
    facts, study = results.first().get("data", {}), results.study
    counts = facts.get("counts", {})
    splits = [f"{counts[split]:,} {split}" for split in SPLITS if split in counts]
    more = [f"{n:,} {called(what)}" for what, n in sorted(counts.items()) if n and what not in SPLITS]
    unit = f" {results.sample}s" if "class_names" in facts else ""
    classes = [f"{sum(map(bool, facts['class_names']))} classes"] if "class_names" in facts else []
    chosen = [f"{called(k)} {said(v)}" for k, v in _flat(study.data.options) if k not in _NOT_SHOWN]
    if study.data.labelled < 1:
        chosen.append(f"labels of {100 * study.data.labelled:g} % of each class to train on")
    text = ", ".join([*splits[:-1], *(c + unit for c in splits[-1:]), *more, *classes])
    selection = f" ({', '.join(chosen)})" if chosen else ""
    return study.data.source + (f": {text}" if text else "") + selection


def _flat(options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings that say something, those of a block by their path, as a sentence lists them."""
    for key, value in options.items():
        if isinstance(value, dict):
            yield from _flat({f"{key}.{inner}": of for inner, of in value.items()})
        elif value is not None:
            yield key, value


def protocol(results: Results) -> str:
    """The recipe that most students share, and where a whole pair has another. Single rows have footnotes (budget)."""
    study = results.study
    dumped = {(p, m): study.recipe_for(p, m).model_dump(mode="json") for p in study.pairs for m in study.methods}
    usual = _most(list(dumped.values()))
    apart: dict[str, list[str]] = {}
    for pair in study.pairs:
        if differs := compared(described(_most([dumped[pair, m] for m in study.methods])), described(usual)):
            apart.setdefault(differs, []).append(pair)
    pairs = [f"{differs} ({listed(those)})" for differs, those in apart.items()]
    return "; ".join([_in_words(results, described(usual)), *pairs])


def _most(recipes: list[dict[str, Any]]) -> dict[str, Any]:
    return max(recipes, key=recipes.count)


def _in_words(results: Results, recipe: dict[str, Any]) -> str:
    drops = recipe.pop("milestones", None) if recipe["schedule"] == "steps" else None
    rate = f"learning rate {said(recipe['lr'])}"
    if drops:
        epochs = f"epoch{'s' * (len(drops) > 1)} {listed([str(epoch) for epoch in drops])}"
        rate += f", times {said(recipe['lr_decay'])} after {epochs}"
    elif recipe["schedule"] != "steps":
        rate += f" ({recipe['schedule']} schedule)"
    optimiser = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}.get(recipe["optimizer"], recipe["optimizer"])
    names = ("momentum", "weight_decay", "label_smoothing", "ema", "clip", "drop_path")
    kept = {name: recipe[name] for name in names if recipe.get(name)}
    if "class_names" in results.first().get("data", {}):  # other samples are no pictures that could be cropped
        kept |= recipe["augmentation"]
        if SOURCES[results.study.data.source].load().streamed or not results.task.padded:  # of these a part is resized
            kept.pop("pad", None)
    parts = [f"{called(name)} {said(value)}" for name, value in kept.items() if value]
    return ", ".join(
        [f"{counted(recipe['epochs'], 'epoch')} of {optimiser}, batches of {said(recipe['batch_size'])}", rate, *parts]
    )


def _teachers(results: Results, table: Table) -> str:
    found: dict[str, str] = {}
    main, shared = results.task.main, alike(results.study)
    for cell in results:
        for name, facts in cell.facts.get("teachers", {}).items():
            value = number(facts.get("last", {}).get(main.name), main.digits)
            kind = facts["architecture"]
            source = results.study.teachers[name].source if name in results.study.teachers else "train"
            how = {"train": "trained here", "fetch": "fetched", "student": "a student of another study"}[source]
            if is_formula(kind):
                how = "a formula"
            key = f"{name}: " if name in chain.from_iterable(shared.values()) else ""
            found[name] = f"{key}{kind} ({value}{' %' if main.unit == '%' else ''}, {how})"
    return listed(list(found.values()))


def _budget(results: Results) -> str:
    cells = [cell for cell in results if cell.facts]
    precisions = sorted({precision_of(cell.facts["recipe"]) for cell in cells})
    costs = [run["facts"]["cost"] for cell in cells for run in cell.runs.values()]
    devices = sorted({cost.get("hardware", cost["device"]) for cost in costs})
    seen = sorted({cost["images_seen"] for cost in costs})
    images = f"{seen[0]:,}" if len(seen) == 1 else f"{seen[0]:,} to {seen[-1]:,}"
    return f"{images} training samples seen per run, in {listed(precisions)} on {listed(devices)}"


def headline(table: Table) -> str:
    """What was found, in one sentence; "" without a baseline."""
    tested = [(row, pair, e) for row in table.rows for pair, e in row.entries.items() if e.p is not None]
    baseline = next((row.label for row in table.rows if row.name == table.baseline), None)
    if baseline is None:
        return ""
    if not tested:
        return f"Found: nothing yet, as no difference to {baseline} could be tested."
    clauses = []
    for mark in ("better", "worse"):
        methods: dict[str, list[float]] = {}
        for row, _, e in tested:
            if e.mark == mark and e.difference is not None:
                methods.setdefault(row.label, []).append(e.difference)
        ranked = sorted(methods.items(), key=lambda item: -len(item[1]))
        found = [f"{label} ({_extent(differences, table)})" for label, differences in ranked]
        clauses.append(f"{listed(found) or 'nothing'} significantly {mark} than {baseline}")
    if not any(e.mark for _, _, e in tested):
        return f"Found: no method differs significantly from {baseline} ({counted(len(tested), 'difference')} tested)."
    undecided = sum(e.mark is None for _, _, e in tested)
    return f"Found: {'; '.join(clauses)}; {undecided} of {counted(len(tested), 'difference')} undecided."


def _extent(differences: list[float], table: Table) -> str:
    if len(table.columns) == 1:
        return number(differences[0], table.measure.digits, sign=True)
    return f"in {len(differences)} of {len(table.columns)} pairs"
