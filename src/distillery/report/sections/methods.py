"""Sections in words: what was trained, and the glossary of its methods."""

from __future__ import annotations

from typing import Any

from distillery.report import glossary, story
from distillery.report.budget import called, said
from distillery.report.recipes import precision_of
from distillery.report.results import Results
from distillery.report.sections.section import Head, Line, Section, Value, words
from distillery.report.table import Table
from distillery.report.text import MISSING, listed


def trained(results: Results, table: Table) -> Section:
    rows = [Line((Value(subject), Value(text))) for subject, text in story.trained(results, table)]
    return Section("trained", "What was trained", (Head("", False), Head("", False)), tuple(rows))


def methods(results: Results, table: Table) -> Section:
    """The glossary: what each method is, where its formula comes from, and with what it was trained."""
    rows = []
    for row in (r for r in table.rows if r.kind != "teacher"):
        method = results.study.methods[row.name]
        facts = [cell.facts for cell in results if cell.method == row.name and cell.facts]
        budgets = sorted({f"{f['recipe']['epochs']} epochs, {f['cost']['images_seen']:,} samples" for f in facts})
        precisions = sorted({precision_of(f["recipe"]) for f in facts})
        settled = [glossary.basis(method), "; ".join(precisions) or MISSING, "; ".join(budgets) or MISSING]
        known = glossary.parts(method)
        about = "; with ".join([*(part.about.removesuffix(".") for part in known[:-1]), known[-1].about])
        links = " ".join(dict.fromkeys(part.link for part in known if part.link))
        label = Value(row.label, sort=row.label, note=row.footnote)
        told = words(*settled, _settings(results, row.name))
        rows.append(Line((label, Value(about, sort=about, link=links), *told)))
    bases = {glossary.basis(results.study.methods[row.name]) for row in table.rows if row.kind != "teacher"}
    notes = tuple(f"{name}: {meaning}." for name, meaning in glossary.MEANINGS.items() if name in bases)
    names = ("method", "what it is", "formula", "precision", "budget of one run", "settings")
    caption = "The methods: what each is, where its formula comes from, and its settings as they were run."
    header = tuple(Head(n, False) for n in names)
    return Section("methods", "The methods", header, tuple(rows), notes=notes, caption=caption)


def _settings(results: Results, method: str) -> str:
    """What a method was run with, defaults filled in, and with which pairs where these have not the same."""
    found: dict[str, list[str]] = {}
    for cell in results:
        if cell.method == method:
            found.setdefault(settings(cell.objective), []).append(cell.pair)
    texts = [text if len(found) == 1 else f"{listed(pairs)}: {text}" for text, pairs in found.items()]
    return ". ".join(texts)


def settings(objective: dict[str, Any]) -> str:
    """A method's block in words: "temperature 4; select: fraction 0.5; plus dist: weight 2"."""
    own = {key: value for key, value in objective.items() if key not in ("objective", "plugins", "plus")}
    blocks = [("", own), *objective.get("plugins", {}).items()]
    blocks += [(f"plus {name}", block) for name, block in objective.get("plus", {}).items()]
    told = [(name, ", ".join(f"{called(k)} {said(v)}" for k, v in block.items())) for name, block in blocks]
    return "; ".join(text for name, of in told if (text := ": ".join(filter(None, (name, of))))) or "none"
