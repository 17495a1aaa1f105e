"""What each method of a study is: its parts, the paper of each, and where its formula comes from.

Papers are read from the docstrings of the components' modules or, where one file holds several, of their classes. Where
a formula comes from is said by `methods.json` here or, of a component of the user's own, by its class (`basis`); a
method is what its weakest part is.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distillery.objectives import OBJECTIVES
from distillery.objectives.basis import BASES, DESIGN, basis_of
from distillery.objectives.plugins import PLUGINS
from distillery.registry import Component
from distillery.study.blocks import Method

SIGNS = {"third-party reading": "†", DESIGN: "‡"}  # after a label; a reproduced method needs none
MEANINGS = {
    "reproduced": "the authors' formula, compared number by number with their released code, or a textbook formula",
    "third-party reading": "as a later code base or paper reads the method, not the authors' own code",
    DESIGN: "the sources, if there are any, leave the formula open; the docstring declares what was chosen",
}
FILE = Path(__file__).with_name("methods.json")
_ARXIV = re.compile(r"arXiv[: ]\s*(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Part:
    """An objective or plug-in as a reader meets it: what its docstring says first, its paper's address, its basis."""

    name: str
    about: str
    link: str
    basis: str


def parts(method: Method) -> list[Part]:
    """The objective of a method, the objectives added to it, and its plug-ins."""
    losses = [OBJECTIVES[name] for name in (method.objective, *method.plus)]
    return [_part(c) for c in (*losses, *(PLUGINS[name] for name in method.plugins))]


def basis(method: Method) -> str:
    """The weakest of its parts' bases."""
    return max((part.basis for part in parts(method)), key=BASES.index)


def arxiv(text: str) -> str:
    """The address of the first paper that a text names by its arXiv number; "" if it names none."""
    found = _ARXIV.search(text)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


@cache
def _table() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return {"links": content["links"], "basis": {n: b for b, names in content["basis"].items() for n in names}}


def _part(component: Component) -> Part:
    about, link = _source(component.module, component.attribute)
    # One's own is imported: a class may have its word from another.
    said = basis_of(component, component.load()) if component.placed else _table()["basis"].get(component.name, DESIGN)
    return Part(component.name, about, _table()["links"].get(component.name, link), said)


@cache
def _source(module: str, name: str) -> tuple[str, str]:
    """Read a class where it stands, without importing it: that takes seconds, and a gigabyte with torch.

    Returns what it is and the address of its paper: the first paragraph and the first arXiv number of the module's
    docstring or, if the class's names a paper at once or alone, of that.
    """
    found = None if module.endswith(".py") else importlib.util.find_spec(module)
    tree = ast.parse(Path(found.origin if found and found.origin else module).read_bytes())
    node = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    whole, own = ast.get_docstring(tree) or "", (node and ast.get_docstring(node)) or ""
    text = next(filter(arxiv, (own.partition("\n\n")[0], whole, own)), whole)
    return " ".join(text.partition("\n\n")[0].split()), arxiv(text)
