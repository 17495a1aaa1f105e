"""Sections in words: what was trained, and the glossary of its methods."""

from __future__ import annotations

from distillery.report import glossary, story
from distillery.report.budget import called, said
from distillery.report.recipes import precision_of
from distillery.report.results import Results
from distillery.report.sections.section import Head, Line, Section, Value, words
from distillery.report.table import Table
from distillery.report.text import MISSING


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
        settings = [f"{called(k)} {said(v)}" for k, v in method.hyper.items()]
        settled = [glossary.basis(method) or MISSING, "; ".join(precisions) or MISSING, "; ".join(budgets) or MISSING]
        known = glossary.parts(method)
        about = "; with ".join(part.about for part in known)
        links = " ".join(dict.fromkeys(part.link for part in known if part.link))
        label = Value(row.label, sort=row.label, note=row.footnote)
        told = words(*settled, ", ".join(settings) or "its defaults")
        rows.append(Line((label, Value(about, sort=about, link=links), *told)))
    notes = (
        "reproduced: the authors' formula, compared number by number with their released code, or a textbook formula.",
        *(f"{name}: {meaning}." for name, meaning in glossary.MEANINGS.items()),
    )
    names = ("method", "what it is", "formula", "precision", "budget of one run", "settings")
    return Section("methods", "The methods", tuple(Head(n, False) for n in names), tuple(rows), notes=notes)
